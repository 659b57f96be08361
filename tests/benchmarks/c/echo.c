// The floor: the echo in C on one thread, with nothing but accept4, epoll, recv and send.
//
// Usage: echo PORT PREFIX. It answers each chunk's complete lines with one send, keeps
// an unfinished line for the next chunk, and does not read from a client that does not
// read. It has no limits, no metrics, no log and no end but a signal's.

#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CHUNK = 65536, EVENTS = 256 };

typedef struct {
    int fd;
    char *line;      // an unfinished line
    size_t length;   // of it
    char *unsent;    // the rest of an answer
    size_t sent, total;
} Client;

static int hub;
static const char *prefix;
static size_t prefix_length;
static char *answer;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void drop(Client *client) {
    close(client->fd);
    free(client->line);
    free(client->unsent);
    free(client);
}

static void watch(Client *client, unsigned events, int operation) {
    struct epoll_event event = {.events = events, .data.ptr = client};
    if (epoll_ctl(hub, operation, client->fd, &event)) fail("epoll_ctl");
}

// Send what is unsent.
static int flush(Client *client) {
    ssize_t sent = send(client->fd, client->unsent + client->sent, client->total - client->sent,
                        MSG_NOSIGNAL);
    if (sent < 0) return 1;  // full; the events tell of a broken connection
    client->sent += (size_t)sent;
    if (client->sent == client->total) {
        free(client->unsent);
        client->unsent = NULL;
        watch(client, EPOLLIN, EPOLL_CTL_MOD);
    }
    return 1;
}

// Answer one chunk; return 0 if the client is gone.
static int serve(Client *client) {
    static char chunk[CHUNK];
    ssize_t got = recv(client->fd, chunk, CHUNK, 0);
    if (got < 0) return 1;
    if (got == 0) return 0;
    size_t used = 0, start = 0;
    for (;;) {
        char *end = memchr(chunk + start, '\n', (size_t)got - start);
        if (end == NULL) break;
        size_t length = (size_t)(end - chunk) + 1 - start;
        memcpy(answer + used, prefix, prefix_length);
        used += prefix_length;
        if (client->length) {
            if (client->length > CHUNK) return 0;
            memcpy(answer + used, client->line, client->length);
            used += client->length;
            client->length = 0;
        }
        memcpy(answer + used, chunk + start, length);
        used += length;
        start += length;
    }
    size_t rest = (size_t)got - start;
    if (rest) {
        if (client->length + rest > CHUNK) return 0;
        client->line = realloc(client->line, client->length + rest);
        if (client->line == NULL) fail("realloc");
        memcpy(client->line + client->length, chunk + start, rest);
        client->length += rest;
    }
    if (used == 0) return 1;
    ssize_t sent = send(client->fd, answer, used, MSG_NOSIGNAL);
    if (sent == (ssize_t)used) return 1;
    client->sent = sent < 0 ? 0 : (size_t)sent;
    client->total = used;
    client->unsent = malloc(used);
    if (client->unsent == NULL) fail("malloc");
    memcpy(client->unsent, answer, used);
    watch(client, EPOLLOUT, EPOLL_CTL_MOD);
    return 1;
}

int main(int count, char **arguments) {
    if (count != 3) {
        fputs("usage: echo PORT PREFIX\n", stderr);
        return 2;
    }
    int on = 1, off = 0;
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = in6addr_any};
    address.sin6_port = htons((unsigned short)atoi(arguments[1]));
    int listener = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (bind(listener, (struct sockaddr *)&address, sizeof address)) fail("bind");
    if (listen(listener, 4096)) fail("listen");
    prefix_length = strlen(arguments[2]) + 1;
    char *text = malloc(prefix_length + 1);
    answer = malloc(CHUNK + CHUNK * (prefix_length + 1));
    if (text == NULL || answer == NULL) fail("malloc");
    sprintf(text, "%s ", arguments[2]);
    prefix = text;
    hub = epoll_create1(0);
    Client *door = calloc(1, sizeof *door);
    if (door == NULL) fail("calloc");
    door->fd = listener;
    watch(door, EPOLLIN, EPOLL_CTL_ADD);
    for (;;) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(hub, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            Client *client = events[i].data.ptr;
            if (client == door) {
                int fd;
                while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    Client *fresh = calloc(1, sizeof *fresh);
                    if (fresh == NULL) fail("calloc");
                    fresh->fd = fd;
                    watch(fresh, EPOLLIN, EPOLL_CTL_ADD);
                }
            } else if (events[i].events & (EPOLLERR | EPOLLHUP)) {
                drop(client);
            } else if (!(client->unsent ? flush(client) : serve(client))) {
                drop(client);
            }
        }
    }
}
