package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"
)

// A cluster is a PostgreSQL primary with a streaming replica that confirms
// each commit. After a failover the service goes on without a replica until a
// new one has caught up, as the usual managers of such pairs do it; only then
// is the next failover allowed, so that none loses a commit.
type cluster struct {
	dir      string
	bin      string
	password string
	as       *syscall.Credential // nil: this user
	target   *target
	say      func(string, ...any)

	mu      sync.Mutex // one disturbance at a time
	primary *node
	replica *node // nil while there is none
	armed   bool  // commits wait for the replica, and it has everything
	count   int
}

// A node is one server.
type node struct {
	name, dir string // dir is a file system of its own if small is set
	port      int
	small     bool
	cmd       *exec.Cmd
	exited    chan struct{}
}

func findPostgres() (string, error) {
	dirs, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", err
	}
	slices.SortFunc(dirs, func(a, b string) int {
		v := func(s string) int { n, _ := strconv.Atoi(filepath.Base(filepath.Dir(s))); return n }
		return v(b) - v(a)
	})
	if p, err := exec.LookPath("initdb"); err == nil {
		dirs = append(dirs, filepath.Dir(p))
	}
	for _, d := range dirs {
		if _, err := os.Stat(filepath.Join(d, "initdb")); err == nil {
			return d, nil
		}
	}
	return "", errors.New("no PostgreSQL server found; run scripts/postgres-install.sh")
}

// newCluster makes a primary and its replica in dir.
func newCluster(ctx context.Context, dir, password string, t *target, say func(string, ...any)) (*cluster, error) {
	c := &cluster{dir: dir, password: password, target: t, say: say}
	var err error
	if c.bin, err = findPostgres(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if os.Getuid() == 0 { // PostgreSQL refuses to run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			return nil, err
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		c.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	n, err := c.node(ctx)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(n.dir, "password")
	if err := errors.Join(os.WriteFile(file, []byte(password+"\n"), 0o600), c.own(file)); err != nil {
		return nil, err
	}
	if err := c.run(ctx, "initdb", "-D", n.data(), "-U", "postgres", "-A", "scram-sha-256", "--pwfile", file, "-E", "UTF8", "--locale=C"); err != nil {
		return nil, err
	}
	hba, err := os.OpenFile(filepath.Join(n.data(), "pg_hba.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	if _, err := hba.WriteString("host replication postgres 127.0.0.1/32 scram-sha-256\n"); err != nil {
		return nil, err
	}
	if err := hba.Close(); err != nil {
		return nil, err
	}
	c.primary = n
	if err := c.start(ctx, n); err != nil {
		return nil, err
	}
	return c, c.addReplica(ctx)
}

// node makes the folder of a server, on a small file system of its own where
// that can be had.
func (c *cluster) node(ctx context.Context) (*node, error) {
	c.count++
	n := &node{name: fmt.Sprintf("pg%d", c.count)}
	n.dir = filepath.Join(c.dir, n.name)
	if err := os.Mkdir(n.dir, 0o700); err != nil {
		return nil, err
	}
	if os.Getuid() == 0 && command(ctx, "mount", "-t", "tmpfs", "-o", "size=1g,mode=700", "tmpfs", n.dir) == nil {
		n.small = true
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	n.port = l.Addr().(*net.TCPAddr).Port
	return n, errors.Join(l.Close(), c.own(n.dir))
}

func (n *node) data() string    { return filepath.Join(n.dir, "data") }
func (n *node) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(n.port)) }

func (c *cluster) own(path string) error {
	if c.as == nil {
		return nil
	}
	return os.Chown(path, int(c.as.Uid), int(c.as.Gid))
}

func (c *cluster) run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, name), args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.as}
	cmd.Env = append(os.Environ(), "PGPASSWORD="+c.password)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// start starts n and waits until it answers.
func (c *cluster) start(ctx context.Context, n *node) error {
	log, err := os.OpenFile(filepath.Join(c.dir, n.name+".log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.CommandContext(context.WithoutCancel(ctx), filepath.Join(c.bin, "postgres"), "-D", n.data(), "-p", strconv.Itoa(n.port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=200", "-c", "shared_buffers=64MB",
		"-c", "max_wal_size=160MB", "-c", "min_wal_size=32MB", "-c", "wal_keep_size=64MB", "-c", "max_slot_wal_keep_size=128MB",
		"-c", "wal_level=replica", "-c", "hot_standby=on", "-c", "track_commit_timestamp=on", "-c", "synchronous_commit=on",
		"-c", "wal_sender_timeout=5s", "-c", "wal_receiver_timeout=5s", "-c", "log_min_messages=log", "-c", "log_line_prefix=%m [%p] %a ")
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.as, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	n.cmd, n.exited = cmd, make(chan struct{})
	go func() {
		defer close(n.exited)
		cmd.Wait() // how it ended does not matter
	}()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		conn, err := c.connect(ctx, n)
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-n.exited:
			return fmt.Errorf("%s ended at once; see %s.log", n.name, n.name)
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w", n.name, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (c *cluster) url(address string) string {
	return fmt.Sprintf("postgres://postgres:%s@%s/postgres?sslmode=disable", c.password, address)
}

func (c *cluster) connect(ctx context.Context, n *node) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return pgx.Connect(ctx, c.url(n.address()))
}

// on runs fn with a connection to n.
func (c *cluster) on(ctx context.Context, n *node, fn func(context.Context, *pgx.Conn) error) error {
	conn, err := c.connect(ctx, n)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return fn(ctx, conn)
}

// addReplica copies the primary, and once the copy follows it, has each commit
// wait for it.
func (c *cluster) addReplica(ctx context.Context) error {
	n, err := c.node(ctx)
	if err != nil {
		return err
	}
	conninfo := fmt.Sprintf("host=127.0.0.1 port=%d user=postgres password=%s application_name=replica", c.primary.port, c.password)
	if err := c.run(ctx, "pg_basebackup", "-D", n.data(), "-d", conninfo, "-R", "-X", "stream", "-c", "fast"); err != nil {
		c.discard(n)
		return err
	}
	if err := c.start(ctx, n); err != nil {
		c.discard(n)
		return err
	}
	c.replica = n
	return c.arm(ctx)
}

// arm has commits wait for the replica, and returns when it has everything.
func (c *cluster) arm(ctx context.Context) error {
	if err := c.setStandbys(ctx, "replica"); err != nil {
		return err
	}
	sleep(ctx, 300*time.Millisecond) // by then every session waits
	return c.on(ctx, c.primary, func(ctx context.Context, conn *pgx.Conn) error {
		// What was committed before commits waited has to arrive too.
		var upTo string
		if err := conn.QueryRow(ctx, `SELECT pg_current_wal_flush_lsn()::text`).Scan(&upTo); err != nil {
			return err
		}
		for {
			var ok bool
			if err := conn.QueryRow(ctx, `SELECT coalesce(bool_or(sync_state = 'sync' AND state = 'streaming' AND flush_lsn >= $1::text::pg_lsn), false) FROM pg_stat_replication`, upTo).Scan(&ok); err != nil {
				return err
			}
			if ok {
				c.armed = true
				return nil
			}
			select {
			case <-ctx.Done():
				return errors.New("the replica does not catch up")
			case <-c.replica.exited:
				return errors.New("the replica has ended")
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
}

// disarm lets commits go on without a replica.
func (c *cluster) disarm(ctx context.Context) error {
	c.armed = false
	return c.setStandbys(ctx, "")
}

func (c *cluster) setStandbys(ctx context.Context, names string) error {
	return c.on(ctx, c.primary, func(ctx context.Context, conn *pgx.Conn) error {
		for _, q := range []string{"ALTER SYSTEM SET synchronous_standby_names = '" + names + "'", "SELECT pg_reload_conf()"} {
			if _, err := conn.Exec(ctx, q); err != nil {
				return err
			}
		}
		return nil
	})
}

// kill ends a server as a machine does that loses its power: no process of it
// does anything any more. (What it had written stays: the disk is not lost.)
func (n *node) kill() {
	pid := n.cmd.Process.Pid
	unix.Kill(pid, unix.SIGSTOP) // it may have ended by itself; so for all below
	for _, child := range childrenOf(pid) {
		unix.Kill(child, unix.SIGKILL)
	}
	unix.Kill(pid, unix.SIGKILL)
	<-n.exited
}

// childrenOf returns the processes whose parent is pid.
func childrenOf(pid int) []int {
	var out []int
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil
	}
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(data), ") ")
		if f := strings.Fields(rest); len(f) > 1 && f[1] == strconv.Itoa(pid) {
			if child, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
				out = append(out, child)
			}
		}
	}
	return out
}

// discard removes what is left of a server.
func (c *cluster) discard(n *node) {
	if n.cmd != nil {
		n.kill()
	}
	if n.small {
		if err := unix.Unmount(n.dir, unix.MNT_DETACH); err != nil {
			c.say("unmount %s: %v", n.name, err)
		}
	}
	if err := os.RemoveAll(n.dir); err != nil {
		c.say("remove %s: %v", n.name, err)
	}
}

// restart ends the primary without a word and starts it again.
func (c *cluster) restart(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	unix.Kill(c.primary.cmd.Process.Pid, unix.SIGQUIT) // "immediate": it recovers from its log
	<-c.primary.exited
	c.armed = false
	if err := c.start(ctx, c.primary); err != nil {
		return err
	}
	return c.rearm(ctx)
}

// rearm waits for the replica after a disturbance, or makes a new one.
func (c *cluster) rearm(ctx context.Context) error {
	if c.replica != nil {
		wait, cancel := context.WithTimeout(ctx, 15*time.Second)
		err := c.arm(wait)
		cancel()
		if err == nil {
			return nil
		}
		c.say("the replica is lost (%v); another is made", firstLine(err))
		c.discard(c.replica)
		c.replica = nil
	}
	return errors.Join(c.disarm(ctx), c.addReplica(ctx))
}

// failover kills the primary and makes the replica take its place.
func (c *cluster) failover(ctx context.Context) (done bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.armed {
		return false, nil
	}
	old := c.primary
	old.kill()
	c.target.set("")
	c.primary, c.replica, c.armed = c.replica, nil, false
	if err := c.on(ctx, c.primary, func(ctx context.Context, conn *pgx.Conn) error {
		var ok bool
		if err := conn.QueryRow(ctx, "SELECT pg_promote(true, 30)").Scan(&ok); err != nil || !ok {
			return fmt.Errorf("promote: %v, %w", ok, err)
		}
		return nil
	}); err != nil {
		return true, err
	}
	if err := c.disarm(ctx); err != nil {
		return true, err
	}
	c.target.set(c.primary.address())
	c.discard(old)
	return true, c.addReplica(ctx)
}

// loseReplica kills the replica: commits wait, until the service goes on
// without it, and then with another.
func (c *cluster) loseReplica(ctx context.Context, wait time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.replica == nil {
		return nil
	}
	c.armed = false
	c.discard(c.replica)
	c.replica = nil
	sleep(ctx, wait)
	return errors.Join(c.disarm(ctx), c.addReplica(ctx))
}

// fillDisk fills the disk of the primary for a while. The server may end
// because of it, and is then started again.
func (c *cluster) fillDisk(ctx context.Context, wait time.Duration) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.primary.small {
		return false, nil
	}
	ballast := filepath.Join(c.primary.dir, "ballast")
	if err := fill(ballast); err != nil {
		return false, err
	}
	sleep(ctx, wait)
	if err := os.Remove(ballast); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return true, err
	}
	c.armed = false
	select {
	case <-c.primary.exited:
		c.say("the primary ended for want of disk space; it is started again")
		if err := c.start(ctx, c.primary); err != nil {
			return true, err
		}
	case <-time.After(time.Second):
	}
	return true, c.rearm(ctx)
}

// fill writes a file until the disk is full.
func fill(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for size := 1 << 20; size >= 512; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, unix.ENOSPC) {
			size /= 2
		} else if err != nil {
			return err
		}
	}
	return nil
}

// settle waits until the pair is whole again.
func (c *cluster) settle(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.primary.exited:
		if err := c.start(ctx, c.primary); err != nil {
			return err
		}
	default:
	}
	if c.armed {
		return nil
	}
	return c.rearm(ctx)
}

func (c *cluster) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range []*node{c.primary, c.replica} {
		if n != nil {
			c.discard(n)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
