package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// clusterSettings are those that differ from PostgreSQL's defaults. What a
// commit costs is left as it is by default: fsync, full_page_writes and
// synchronous_commit are on.
var clusterSettings = []string{
	"shared_buffers=512MB", "maintenance_work_mem=1GB", "max_wal_size=4GB", "max_connections=200", "logging_collector=off", "unix_socket_directories=",
}

// A cluster is a PostgreSQL server of our own, on loopback, which syncs to disk
// as a real one does.
type cluster struct {
	dir, password string
	port          int
	cmd           *exec.Cmd
	made          int
}

// startCluster makes a cluster in dir, which must not exist.
func startCluster(ctx context.Context, dir string) (*cluster, error) {
	bin, err := serverPrograms()
	if err != nil {
		return nil, err
	}
	// PostgreSQL refuses to run as root.
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGINT, Setpgid: true}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	c := &cluster{dir: dir, password: rand.Text()}
	secret := filepath.Join(dir, "password")
	if err := os.WriteFile(secret, []byte(c.password), 0o600); err != nil {
		return nil, err
	}
	if os.Geteuid() == 0 {
		uid, gid, err := postgresUser()
		if err != nil {
			return nil, err
		}
		attr.Credential = &syscall.Credential{Uid: uid, Gid: gid}
		if err := errors.Join(os.Chown(dir, int(uid), int(gid)), os.Chown(secret, int(uid), int(gid))); err != nil {
			return nil, err
		}
	}
	data := filepath.Join(dir, "data")
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "scram-sha-256", "--pwfile", secret, "-E", "UTF8", "--locale=C")
	initdb.SysProcAttr, initdb.Dir = attr, dir
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, bytes.TrimSpace(out))
	}
	if c.port, err = freePort(); err != nil {
		return nil, err
	}
	args := []string{"-D", data, "-p", strconv.Itoa(c.port), "-c", "listen_addresses=127.0.0.1"}
	for _, s := range clusterSettings {
		args = append(args, "-c", s)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	c.cmd = exec.Command(filepath.Join(bin, "postgres"), args...)
	c.cmd.SysProcAttr, c.cmd.Dir, c.cmd.Stdout, c.cmd.Stderr = attr, dir, log, log
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	for range 300 {
		conn, err := pgx.Connect(ctx, c.url("postgres"))
		if err == nil {
			return c, conn.Close(ctx)
		}
		if ctx.Err() != nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	text, err := os.ReadFile(log.Name())
	return nil, errors.Join(fmt.Errorf("postgres does not answer; its log: %s", text), err, c.stop())
}

// serverPrograms returns the folder of the newest installed server's programs.
func serverPrograms() (string, error) {
	var found []string
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin"} {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			return "", err
		}
		found = append(found, dirs...)
	}
	if p, err := exec.LookPath("initdb"); err == nil {
		found = append(found, filepath.Dir(p))
	}
	for _, dir := range slices.Backward(found) {
		if _, err := os.Stat(filepath.Join(dir, "initdb")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("no PostgreSQL server found; run scripts/postgres-install.sh, or leave PostgreSQL out with -stores sqlite")
}

func postgresUser() (uid, gid uint32, err error) {
	u, err := user.Lookup("postgres")
	if err != nil {
		return 0, 0, fmt.Errorf("PostgreSQL does not run as root: %w", err)
	}
	id, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return 0, 0, err
	}
	group, err := strconv.ParseUint(u.Gid, 10, 32)
	return uint32(id), uint32(group), err
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// url returns the address of a database.
func (c *cluster) url(database string) string {
	return fmt.Sprintf("postgres://postgres:%s@127.0.0.1:%d/%s?sslmode=disable", c.password, c.port, database)
}

// exec runs statements in a database, on one connection.
func (c *cluster) exec(ctx context.Context, database string, sqls ...string) error {
	conn, err := pgx.Connect(ctx, c.url(database))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, sql := range sqls {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// create makes an empty database and returns its name.
func (c *cluster) create(ctx context.Context) (string, error) {
	c.made++
	name := fmt.Sprintf("bench%d", c.made)
	return name, c.exec(ctx, "postgres", "CREATE DATABASE "+name)
}

// drop removes a database. A checkpoint follows, so that what is measured next
// does not pay for writing out what is gone.
func (c *cluster) drop(ctx context.Context, name string) error {
	return c.exec(ctx, "postgres", "DROP DATABASE "+name+" WITH (FORCE)", "CHECKPOINT")
}

// cpuTime returns how many seconds of CPU the server has used so far.
func (c *cluster) cpuTime() (float64, error) {
	const ticks = 100 // a second, for Linux on every machine
	dirs, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	var sum float64
	for _, path := range dirs {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// The name, in parentheses, may hold anything.
		pid, rest, _ := strings.Cut(string(raw), " (")
		f := strings.Fields(rest[strings.LastIndex(rest, ")")+1:])
		if len(f) < 15 {
			continue
		}
		own, server := f[1] == strconv.Itoa(c.cmd.Process.Pid), pid == strconv.Itoa(c.cmd.Process.Pid)
		if !own && !server {
			continue
		}
		fields := f[11:13] // user, system
		if server {
			fields = f[11:15] // and those of its children that have ended
		}
		for _, s := range fields {
			n, err := strconv.ParseFloat(s, 64)
			if err != nil {
				return 0, err
			}
			sum += n / ticks
		}
	}
	return sum, nil
}

// stop ends the server.
func (c *cluster) stop() error {
	if err := c.cmd.Process.Signal(syscall.SIGINT); err != nil {
		return fmt.Errorf("stop postgres: %w", err)
	}
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("stop postgres: %w", err)
	}
	return nil
}
