// An open-loop load generator for HTTP/1.1 on loopback: requests arrive at random moments with a
// given mean rate, whether or not earlier ones were answered, as they do from many independent
// clients. A request takes an idle connection or opens a new one. One thread, one epoll set.
//
// Standard input: the plan as JSON. Standard output: one line for each arrival, in microseconds:
// phase, scheduled since the start of the phase, lateness of the generator, time from sending to
// the end of the answer, outcome (an HTTP status or one of the constants below).
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

const (
	unanswered   = 0  // given up after the timeout
	noConnection = -1 // every connection was in use
	broken       = -2 // refused, reset or closed before the end of the answer
	unexpected   = -3 // an answer without the marker, or with another status
	bufferSize   = 16 << 10
	burst        = 32 // arrivals handled between two looks at the sockets
)

type phase struct {
	Rate    float64 `json:"rate"` // requests per second
	Seconds float64 `json:"seconds"`
}

type plan struct {
	Port                int     `json:"port"`
	Request             string  `json:"request"` // as it is sent
	Marker              string  `json:"marker"`  // part of the body of every expected answer
	Connections         int     `json:"connections"`
	Sources             int     `json:"sources"` // sender addresses, 127.0.1.1 and following
	TimeoutMilliseconds int64   `json:"timeout_milliseconds"`
	Seed                int64   `json:"seed"`
	Phases              []phase `json:"phases"`
}

type sample struct {
	phase                     int
	scheduled, lateness, took int64
	outcome                   int
}

type connection struct {
	fd     int
	sample *sample // of the request under way; nil while idle
	sent   int64
	ready  bool // connected
	buffer []byte
	used   int
}

type generator struct {
	plan
	request  []byte
	marker   []byte
	epoll    int
	timer    int
	open     map[int]*connection
	idle     []*connection
	waiting  []*connection // in the order of sending, to find those to give up; may hold done ones
	deadline []int64
	samples  []*sample
	source   int
	example  string
}

func now() int64 { return time.Since(start).Nanoseconds() }

var start = time.Now()

func main() {
	g := &generator{open: map[int]*connection{}}
	must(json.NewDecoder(os.Stdin).Decode(&g.plan))
	g.request, g.marker = []byte(g.Request), []byte(g.Marker)
	var err error
	g.epoll, err = syscall.EpollCreate1(0)
	must(err)
	timer, _, errno := syscall.RawSyscall(syscall.SYS_TIMERFD_CREATE, 1, syscall.O_NONBLOCK, 0)
	if errno != 0 {
		must(errno)
	}
	g.timer = int(timer)
	must(g.watch(g.timer, syscall.EPOLLIN))
	g.run()
	out := bufio.NewWriter(os.Stdout)
	for _, s := range g.samples {
		fmt.Fprintf(out, "%d,%d,%d,%d,%d\n", s.phase, s.scheduled/1000, s.lateness/1000, s.took/1000, s.outcome)
	}
	must(out.Flush())
	fmt.Fprint(os.Stderr, g.example)
}

func (g *generator) run() {
	random := rand.New(rand.NewSource(g.Seed))
	for index, current := range g.Phases {
		began := now()
		length := int64(current.Seconds * 1e9)
		next := int64(0)
		for next < length {
			for n := 0; n < burst && next < length && began+next <= now(); n++ {
				g.arrive(&sample{phase: index, scheduled: next, lateness: now() - began - next})
				next += int64(random.ExpFloat64() / current.Rate * 1e9)
			}
			g.poll(began + min(next, length))
		}
	}
	for len(g.waiting) > 0 {
		g.poll(g.deadline[0])
	}
}

// poll handles what the sockets bring, for no longer than until the given moment.
func (g *generator) poll(until int64) {
	g.giveUp()
	wait := 0
	if left := until - now(); left > 0 {
		if len(g.deadline) > 0 {
			left = min(left, max(1, g.deadline[0]-now()))
		}
		setting := [4]int64{0, 0, left / 1e9, left % 1e9}
		syscall.RawSyscall6(syscall.SYS_TIMERFD_SETTIME, uintptr(g.timer), 0, uintptr(unsafe.Pointer(&setting)), 0, 0, 0)
		wait = -1
	}
	var events [256]syscall.EpollEvent
	count, err := syscall.EpollWait(g.epoll, events[:], wait)
	if err != nil && err != syscall.EINTR {
		must(err)
	}
	for _, event := range events[:max(0, count)] {
		if int(event.Fd) == g.timer {
			var expirations [8]byte
			syscall.Read(g.timer, expirations[:])
		} else if c := g.open[int(event.Fd)]; c != nil {
			g.handle(c, event.Events)
		}
	}
}

func (g *generator) arrive(s *sample) {
	g.samples = append(g.samples, s)
	for len(g.idle) > 0 {
		c := g.idle[len(g.idle)-1]
		g.idle = g.idle[:len(g.idle)-1]
		if g.open[c.fd] == c {
			g.begin(c, s)
			return
		}
	}
	if len(g.open) >= g.Connections {
		s.outcome = noConnection
		return
	}
	c, err := g.connect()
	if err != nil {
		s.outcome = broken
		return
	}
	g.begin(c, s)
}

func (g *generator) connect() (*connection, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	g.source++
	from := &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 1, byte(1 + g.source%g.Sources)}}
	to := &syscall.SockaddrInet4{Port: g.Port, Addr: [4]byte{127, 0, 0, 1}}
	syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	err = syscall.Bind(fd, from)
	if err == nil {
		err = syscall.Connect(fd, to)
	}
	if err != nil && err != syscall.EINPROGRESS {
		syscall.Close(fd)
		return nil, err
	}
	const edgeTriggered = 1 << 31
	must(g.watch(fd, syscall.EPOLLIN|syscall.EPOLLOUT|edgeTriggered))
	c := &connection{fd: fd, buffer: make([]byte, bufferSize)}
	g.open[fd] = c
	return c, nil
}

func (g *generator) watch(fd int, events uint32) error {
	return syscall.EpollCtl(g.epoll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: events, Fd: int32(fd)})
}

func (g *generator) begin(c *connection, s *sample) {
	c.sample, c.sent, c.used = s, now(), 0
	g.waiting = append(g.waiting, c)
	g.deadline = append(g.deadline, c.sent+g.TimeoutMilliseconds*1e6)
	if c.ready {
		g.write(c)
	}
}

func (g *generator) write(c *connection) {
	// A request is far smaller than the socket's buffer: it is taken whole or the connection is lost.
	if count, err := syscall.Write(c.fd, g.request); err != nil || count != len(g.request) {
		g.end(c, broken, true)
	}
}

func (g *generator) handle(c *connection, events uint32) {
	if !c.ready {
		if failure, err := syscall.GetsockoptInt(c.fd, syscall.SOL_SOCKET, syscall.SO_ERROR); err != nil || failure != 0 {
			g.end(c, broken, true)
			return
		}
		if events&syscall.EPOLLOUT == 0 {
			return
		}
		c.ready = true
		g.write(c)
		return
	}
	for g.open[c.fd] == c && events&(syscall.EPOLLIN|syscall.EPOLLHUP|syscall.EPOLLERR) != 0 {
		count, err := syscall.Read(c.fd, c.buffer[c.used:])
		if err == syscall.EAGAIN {
			return
		}
		if err != nil || count <= 0 {
			g.end(c, broken, true)
			return
		}
		c.used += count
		if status, body, closes := answer(c.buffer[:c.used]); status != 0 {
			g.end(c, g.judge(status, body), closes)
		}
	}
}

// answer returns status 0 until the answer is complete.
func answer(received []byte) (status int, body []byte, closes bool) {
	head, body, found := bytes.Cut(received, []byte("\r\n\r\n"))
	if !found || len(head) < 12 {
		return 0, nil, false
	}
	lower := bytes.ToLower(head)
	closes = bytes.Contains(lower, []byte("\nconnection: close"))
	if _, after, has := bytes.Cut(lower, []byte("\ncontent-length: ")); has {
		digits, _, _ := bytes.Cut(after, []byte("\r"))
		if length, err := strconv.Atoi(string(digits)); err != nil || len(body) < length {
			return 0, nil, false
		}
	} else if !bytes.HasSuffix(body, []byte("0\r\n\r\n")) {
		return 0, nil, false
	}
	status, _ = strconv.Atoi(string(head[9:12]))
	return status, body, closes
}

func (g *generator) judge(status int, body []byte) int {
	if status == 200 && bytes.Contains(body, g.marker) || status == 503 {
		return status
	}
	if g.example == "" {
		g.example = fmt.Sprintf("%d %.300q", status, body)
	}
	return unexpected
}

// end notes the outcome of the request under way, if there is one, and keeps or closes the connection.
func (g *generator) end(c *connection, outcome int, closes bool) {
	if c.sample != nil {
		c.sample.took, c.sample.outcome = now()-c.sent, outcome
		c.sample = nil
	}
	if closes {
		delete(g.open, c.fd)
		syscall.Close(c.fd)
	} else {
		g.idle = append(g.idle, c)
	}
}

// giveUp ends the requests that have waited too long, and forgets those that are done.
func (g *generator) giveUp() {
	for len(g.waiting) > 0 {
		c, due := g.waiting[0], g.deadline[0]
		current := c.sample != nil && c.sent+g.TimeoutMilliseconds*1e6 == due
		if current && due > now() {
			return
		}
		g.waiting, g.deadline = g.waiting[1:], g.deadline[1:]
		if current {
			g.end(c, unanswered, true)
		}
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
