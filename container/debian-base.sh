#!/bin/sh
# Make a base image for the Containerfile where no image registry is reached: this
# machine's own Debian or Ubuntu release with its Python, from the mirror that apt
# is set up with. Needs root and debootstrap.
#
#   sh container/debian-base.sh FOLDER
#
# leaves FOLDER/base.tar, for `podman import`, and FOLDER/python, the version that
# the image's Python has, such as 3.11.
set -eu

folder=$1
root=$folder/root
mkdir -p "$folder"
trap 'rm -rf "$root"' EXIT

. /etc/os-release
mirror=$(apt-get indextargets --format '$(CODENAME) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
    awk -v suite="$VERSION_CODENAME" '$1 == suite && $2 == "main" { print $3; exit }')

rm -rf "$root"
debootstrap --variant=minbase --include=ca-certificates,python3 \
    "$VERSION_CODENAME" "$root" "$mirror" >"$folder/debootstrap.log" 2>&1 || {
    tail -n 20 "$folder/debootstrap.log" >&2
    exit 1
}

# shellcheck disable=SC2016 # the inner shell is Python
chroot "$root" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' >"$folder/python"

tar --create --file "$folder/base.tar" --directory "$root" \
    --exclude='./var/cache/*' --exclude='./var/lib/apt/lists/*' --exclude='./var/log/*' \
    --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' \
    .
