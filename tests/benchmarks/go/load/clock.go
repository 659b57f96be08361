package main

import (
	"math/bits"
	"syscall"
	"time"
	"unsafe"
)

// processCPU is the user and system time of all threads of a process so far, also of
// those that ended, in nanoseconds where /proc/PID/stat counts ticks of 10 ms. The
// clock's number is what clock_getcpuclockid(3) computes.
func processCPU(pid int) (time.Duration, error) {
	const scheduler = 2
	var now syscall.Timespec
	_, _, errno := syscall.Syscall(
		syscall.SYS_CLOCK_GETTIME, uintptr(^pid<<3|scheduler), uintptr(unsafe.Pointer(&now)), 0,
	)
	if errno != 0 {
		return 0, errno
	}
	return time.Duration(now.Nano()), nil
}

// resolution is how many leading bits of a latency are kept: 6 are within 3 %.
const resolution = 6

// A histogram counts latencies in buckets whose width grows with the latency.
type histogram [(64 - resolution) << resolution]int64

func (h *histogram) add(latency time.Duration) {
	value := uint64(max(latency, 1<<resolution))
	shift := bits.Len64(value) - resolution
	h[shift<<resolution|int(value>>shift)]++
}

func (h *histogram) merge(other *histogram) {
	for index, count := range other {
		h[index] += count
	}
}

// quantile is the latency that a share of all did not exceed, 0 without any.
func (h *histogram) quantile(share float64) time.Duration {
	var total, seen int64
	for _, count := range h {
		total += count
	}
	for index, count := range h {
		seen += count
		if count > 0 && float64(seen) >= share*float64(total) {
			shift := index >> resolution
			return time.Duration(index&(1<<resolution-1)) << shift
		}
	}
	return 0
}
