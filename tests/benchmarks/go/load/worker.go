package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"
)

// digits of a line's sequence number: no line is sent twice on a run, so that an old
// or a doubled answer cannot pass for the right one.
const digits = 9

// A worker has one connection at a time and one batch of lines in flight on it.
type worker struct {
	run       *run
	host      string
	request   []byte
	want      []byte
	got       []byte
	sequence  int
	lines     atomic.Int64
	latencies histogram
}

func newWorker(r *run, index int) *worker {
	w := &worker{
		run: r,
		// Each worker has a loopback address of its own: what a closed connection
		// leaves behind (TIME_WAIT) then never uses up the ports.
		host: fmt.Sprintf("127.0.0.%d:%d", 1+index, r.port),
	}
	line := fmt.Sprintf("w%03d %0*d world%s\n", index, digits, 0, strings.Repeat("!", r.pad))
	for range r.depth {
		w.request = append(w.request, line...)
		w.want = append(w.want, r.prefix+" "+line...)
	}
	w.got = make([]byte, len(w.want))
	return w
}

// stay keeps one connection, and sends a batch when the one before is answered.
func (w *worker) stay() error {
	conn, err := w.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	for !w.run.stop.Load() {
		start := time.Now()
		if err := w.exchange(conn); err != nil {
			return err
		}
		w.done(start)
	}
	return nil
}

// reconnect opens a connection for each batch. The client closes first, for every
// server alike, as a client that has its answer does.
func (w *worker) reconnect() error {
	for !w.run.stop.Load() {
		start := time.Now()
		conn, err := w.dial()
		if err != nil {
			return err
		}
		err = w.exchange(conn)
		conn.Close()
		if err != nil {
			return err
		}
		w.done(start)
	}
	return nil
}

func (w *worker) dial() (net.Conn, error) {
	// No keep-alive probes: four system calls less for each connection.
	dialer := net.Dialer{Deadline: w.run.deadline, KeepAlive: -1}
	conn, err := dialer.DialContext(context.Background(), "tcp4", w.host)
	if err == nil {
		err = conn.SetDeadline(w.run.deadline)
	}
	return conn, err
}

// exchange sends a batch in one write and reads its answer, which has to be right.
func (w *worker) exchange(conn net.Conn) error {
	w.stamp()
	if _, err := conn.Write(w.request); err != nil {
		return err
	}
	if read, err := io.ReadFull(conn, w.got); err != nil {
		return fmt.Errorf("answered %q, then: %w", w.got[:read], err)
	}
	if !bytes.Equal(w.got, w.want) {
		return fmt.Errorf("answered %q, expected %q", w.got, w.want)
	}
	return nil
}

// stamp writes the next sequence numbers into the request and the expected answer.
func (w *worker) stamp() {
	const before = len("w000 ")
	asked, answered := len(w.request)/w.run.depth, len(w.want)/w.run.depth
	for index := range w.run.depth {
		number := w.request[index*asked+before:][:digits]
		w.sequence++
		for place, rest := digits-1, w.sequence; place >= 0; place, rest = place-1, rest/10 {
			number[place] = byte('0' + rest%10)
		}
		copy(w.want[index*answered+answered-asked+before:], number)
	}
}

// done counts a batch that was answered.
func (w *worker) done(start time.Time) {
	w.lines.Add(int64(w.run.depth))
	if w.run.recording.Load() {
		w.latencies.add(time.Since(start))
	}
}
