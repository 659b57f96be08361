// Command load drives one echo server over loopback for a while, checks every answer
// byte for byte, and prints as one JSON object what the server did and what it cost.
//
// It reads the server's CPU clock itself, at the two ends of the measured window, so
// that lines and CPU time are of the same moment.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// A report is what one run prints.
type report struct {
	Lines   int64   `json:"lines"`   // answered within the window
	Seconds float64 `json:"seconds"` // the window's length
	CPU     float64 `json:"cpu"`     // the server's user and system time in it, in seconds
	P50     float64 `json:"p50"`     // seconds from a request to its whole answer
	P99     float64 `json:"p99"`
}

// patience bounds a run in which the server stops to answer.
const patience = 10 * time.Second

// A run is what its workers share.
type run struct {
	port      int
	prefix    string
	depth     int
	pad       int
	deadline  time.Time
	recording atomic.Bool
	stop      atomic.Bool
}

func main() {
	r := &run{}
	flag.IntVar(&r.port, "port", 0, "the server's port on loopback")
	flag.StringVar(&r.prefix, "prefix", "", "what each answer has to begin with")
	flag.IntVar(&r.depth, "depth", 1, "lines in flight on a connection")
	flag.IntVar(&r.pad, "pad", 0, "bytes to make each line longer by, beyond its 20")
	pid := flag.Int("pid", 0, "the server's process, whose CPU time is read")
	workers := flag.Int("workers", 50, "connections at any time")
	connect := flag.Bool("connect", false, "a new connection for each batch of lines")
	warm := flag.Duration("warm", 300*time.Millisecond, "how long to load before the window")
	window := flag.Duration("window", 2*time.Second, "how long to measure")
	flag.Parse()
	r.deadline = time.Now().Add(*warm + *window + patience)

	result, err := r.measure(*pid, *workers, *connect, *warm, *window)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(result)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// measure runs the workers, and reads their count and the server's clock at both ends
// of the window. The first worker that fails ends the run.
func (r *run) measure(pid, count int, connect bool, warm, window time.Duration) (report, error) {
	workers := make([]*worker, count)
	ended := make(chan error, count)
	for index := range workers {
		workers[index] = newWorker(r, index)
		go func() {
			if connect {
				ended <- workers[index].reconnect()
			} else {
				ended <- workers[index].stay()
			}
		}()
	}
	lines := func() (sum int64) {
		for _, w := range workers {
			sum += w.lines.Load()
		}
		return sum
	}
	if err := wait(warm, ended); err != nil {
		return report{}, err
	}
	r.recording.Store(true)
	before, err := processCPU(pid)
	if err != nil {
		return report{}, err
	}
	start, first := time.Now(), lines()
	if err := wait(window, ended); err != nil {
		return report{}, err
	}
	after, err := processCPU(pid)
	if err != nil {
		return report{}, err
	}
	elapsed, last := time.Since(start), lines()
	r.recording.Store(false)
	r.stop.Store(true)
	var latencies histogram
	for range workers {
		if err := <-ended; err != nil {
			return report{}, err
		}
	}
	for _, w := range workers {
		latencies.merge(&w.latencies)
	}
	return report{
		Lines:   last - first,
		Seconds: elapsed.Seconds(),
		CPU:     (after - before).Seconds(),
		P50:     latencies.quantile(0.50).Seconds(),
		P99:     latencies.quantile(0.99).Seconds(),
	}, nil
}

// wait sleeps, unless a worker ends before: then that is an error.
func wait(pause time.Duration, ended <-chan error) error {
	select {
	case err := <-ended:
		return err
	case <-time.After(pause):
		return nil
	}
}
