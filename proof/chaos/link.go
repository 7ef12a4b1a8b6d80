package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A network is a bridge in this namespace, with a namespace for each process
// at the other end of a cable. Where the system refuses namespaces, processes
// share this one, and only their ways to the database can be cut.
type network struct {
	ok     bool // namespaces can be had
	prefix string
	subnet string // "10.77.5"
	bridge string
	spaces []string
	target target
}

// newNetwork makes the bridge.
func newNetwork(ctx context.Context, say func(string, ...any)) (*network, error) {
	n := &network{prefix: fmt.Sprintf("rc%d", os.Getpid()%100000), subnet: fmt.Sprintf("10.77.%d", os.Getpid()%250)}
	n.bridge = n.prefix + "b"
	if err := errors.Join(
		command(ctx, "ip", "link", "add", n.bridge, "type", "bridge"),
		command(ctx, "ip", "addr", "add", n.subnet+".1/24", "dev", n.bridge),
		command(ctx, "ip", "link", "set", n.bridge, "up"),
	); err != nil {
		_ = command(ctx, "ip", "link", "del", n.bridge) // it may not be there
		say("missing: network namespaces (%v); processes share this one, and only their ways to the database are cut", firstLine(err))
		return n, nil
	}
	n.ok = true
	return n, nil
}

// address is where the proxies of the database listen.
func (n *network) address() string {
	if n.ok {
		return n.subnet + ".1"
	}
	return "127.0.0.1"
}

// space makes the namespace of the k-th process and returns its name, and the
// address that it has.
func (n *network) space(ctx context.Context, k int) (name, ip string, err error) {
	if !n.ok {
		return "", "127.0.0.1", nil
	}
	name, ip = fmt.Sprintf("%s-%d", n.prefix, k), fmt.Sprintf("%s.%d", n.subnet, 10+k)
	outer, inner := n.cable(k), "eth0"
	if err := command(ctx, "ip", "netns", "add", name); err != nil {
		return "", "", err
	}
	n.spaces = append(n.spaces, name)
	for _, args := range [][]string{
		{"link", "add", outer, "type", "veth", "peer", "name", inner, "netns", name},
		{"link", "set", outer, "master", n.bridge},
		{"link", "set", outer, "up"},
		{"-n", name, "addr", "add", ip + "/24", "dev", inner},
		{"-n", name, "link", "set", inner, "up"},
		{"-n", name, "link", "set", "lo", "up"},
	} {
		if err := command(ctx, "ip", args...); err != nil {
			return "", "", err
		}
	}
	return name, ip, nil
}

func (n *network) cable(k int) string { return fmt.Sprintf("%sv%d", n.prefix, k) }

// pull cuts the cable of the k-th process, or plugs it in again.
func (n *network) pull(ctx context.Context, k int, cut bool) error {
	state := "up"
	if cut {
		state = "down"
	}
	return command(ctx, "ip", "link", "set", n.cable(k), state)
}

func (n *network) close(say func(string, ...any)) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, s := range n.spaces {
		if err := command(ctx, "ip", "netns", "del", s); err != nil {
			say("remove namespace: %v", err)
		}
	}
	if n.ok {
		if err := command(ctx, "ip", "link", "del", n.bridge); err != nil {
			say("remove bridge: %v", err)
		}
	}
}

// command runs a program and returns an error with what it said.
func command(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

func firstLine(err error) string {
	s, _, _ := strings.Cut(err.Error(), "\n")
	return s
}

// A target is the server that the proxies lead to. Connections to a server
// that is no longer the target are closed.
type target struct {
	mu      sync.Mutex
	address string // "" while there is none
	changed chan struct{}
}

func (t *target) set(address string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.changed != nil {
		close(t.changed)
	}
	t.address, t.changed = address, make(chan struct{})
}

func (t *target) get() (string, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.changed == nil {
		t.changed = make(chan struct{})
	}
	return t.address, t.changed
}

// A link is one process's way to the database: an address that stays the same
// through failovers, and that can be slow, cut, or forget its connections.
type link struct {
	name     string
	listener net.Listener
	target   *target

	base    time.Duration // how far away the database is at best
	cut     atomic.Bool
	delay   atomic.Int64 // nanoseconds, each way, of which a half is random
	stall   atomic.Int64 // in 1000 pieces, so many are lost and sent again after a while
	mu      sync.Mutex
	forget  chan struct{} // closed when the connections of now are forgotten
	forgets atomic.Int64
}

func newLink(ctx context.Context, name, address string, base time.Duration, t *target) (*link, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		return nil, err
	}
	k := &link{name: name, listener: l, target: t, base: base, forget: make(chan struct{})}
	k.heal()
	go k.accept()
	return k, nil
}

func (k *link) address() string { return k.listener.Addr().String() }

// amnesia makes every connection of now silent for good, as a firewall does
// that has forgotten them. New ones work.
func (k *link) amnesia() {
	k.mu.Lock()
	defer k.mu.Unlock()
	close(k.forget)
	k.forget = make(chan struct{})
	k.forgets.Add(1)
}

func (k *link) heal() {
	k.cut.Store(false)
	k.delay.Store(int64(k.base))
	k.stall.Store(0)
}

func (k *link) accept() {
	for {
		c, err := k.listener.Accept()
		if err != nil {
			return
		}
		go k.serve(c)
	}
}

func (k *link) serve(client net.Conn) {
	defer client.Close()
	address, changed := k.target.get()
	if address == "" {
		return
	}
	k.mu.Lock()
	forget := k.forget
	k.mu.Unlock()
	var d net.Dialer
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	server, err := d.DialContext(ctx, "tcp", address)
	cancel()
	if err != nil {
		return
	}
	defer server.Close()
	ended := make(chan struct{}, 2)
	go func() { k.carry(client, server, forget); ended <- struct{}{} }()
	go func() { k.carry(server, client, forget); ended <- struct{}{} }()
	select {
	case <-changed:
	case <-ended:
	}
}

// carry copies what arrives at from to to, each piece after the delay that is
// set when it arrives.
func (k *link) carry(from, to net.Conn, forget <-chan struct{}) {
	type piece struct {
		data []byte
		due  time.Time
	}
	pieces := make(chan piece, 256)
	go func() {
		defer close(pieces)
		for {
			buf := make([]byte, 16<<10)
			n, err := from.Read(buf)
			if n > 0 {
				wait := time.Duration(k.delay.Load())
				if wait > 0 {
					wait = wait/2 + rand.N(wait/2+1)
				}
				if k.stall.Load() > rand.Int64N(1000) {
					wait += 200*time.Millisecond + rand.N(400*time.Millisecond) // until it is sent again
				}
				pieces <- piece{buf[:n], time.Now().Add(wait)}
			}
			if err != nil {
				return
			}
		}
	}()
	silent := false
	for p := range pieces {
		for d := time.Until(p.due); d > 0 || k.cut.Load(); d = time.Until(p.due) {
			time.Sleep(max(min(d, 20*time.Millisecond), time.Millisecond))
		}
		select {
		case <-forget:
			silent = true
		default:
		}
		if silent {
			continue
		}
		if _, err := to.Write(p.data); err != nil {
			break
		}
	}
	if silent { // nobody is told that the connection has ended
		<-time.After(time.Minute)
	}
	for range pieces { // let the reader end
		continue
	}
}
