package local

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// A carrier is an address that a file can be had from. Exactly one of URL,
// Copy, NPM, PyPI and Maven is set. Packages are fetched through the ordinary
// client of their registry, so that its proxies and mirrors apply; nothing of
// a package is run.
type carrier struct {
	URL   string `json:"url,omitempty"`   // of the file, or of an archive if Path is set
	NPM   string `json:"npm,omitempty"`   // package@version
	PyPI  string `json:"pypi,omitempty"`  // package==version
	Maven string `json:"maven,omitempty"` // group:artifact:version
	Copy  string `json:"-"`               // path of the file on this machine

	Platform string `json:"platform,omitempty"` // PyPI's tag of the wheel's platform; default: any
	Path     string `json:"path,omitempty"`     // of the file in the package or archive
}

func (c carrier) String() string {
	switch {
	case c.NPM != "":
		return "npm package " + c.NPM
	case c.PyPI != "":
		return "Python package " + c.PyPI
	case c.Maven != "":
		return "Maven artifact " + c.Maven
	}
	return cmp.Or(c.URL, c.Copy)
}

// fetch writes the file to in. The bytes are as the carrier has them: the
// caller checks them.
func (c carrier) fetch(ctx context.Context, in *install, a *archives, progress func(done int64)) error {
	if c.Copy != "" {
		f, err := os.Open(c.Copy)
		if err != nil {
			return err
		}
		defer f.Close()
		return in.copyAt(ctx, f, 0, progress)
	}
	if c.URL != "" && c.Path == "" {
		return download(ctx, c.URL, in, progress)
	}
	archive, err := a.get(ctx, c)
	if err != nil {
		return err
	}
	r, err := openMember(archive, c.Path)
	if err != nil {
		return err
	}
	defer r.Close()
	return in.copyAt(ctx, r, 0, progress)
}

// archives are the packages and archives that one call of Pull has fetched: a
// package may carry several of its files.
type archives struct {
	dir  string
	have map[carrier]string // without Path
}

// get returns the path of the package or archive that c names.
func (a *archives) get(ctx context.Context, c carrier) (string, error) {
	c.Path = ""
	if name, ok := a.have[c]; ok {
		return name, nil
	}
	dir, err := os.MkdirTemp(a.dir, "")
	if err != nil {
		return "", err
	}
	name, err := c.archive(ctx, dir)
	if err == nil {
		a.have[c] = name
	}
	return name, err
}

// archive fetches the package or archive into dir and returns its path.
func (c carrier) archive(ctx context.Context, dir string) (string, error) {
	var err error
	switch {
	case c.URL != "":
		name := filepath.Join(dir, path.Base(c.URL))
		f, err := os.Create(name)
		if err != nil {
			return "", err
		}
		defer f.Close()
		// An archive is not much larger than the largest one that we know.
		in := &install{File: f, f: &file{Size: 256 << 20}}
		return name, download(ctx, c.URL, in, func(int64) {})
	case c.NPM != "":
		err = client(ctx, dir, "npm", "pack", "--ignore-scripts", "--silent", c.NPM)
	case c.PyPI != "":
		args := []string{"-m", "pip", "download", "--no-deps", "--quiet", "--only-binary=:all:", "--disable-pip-version-check"}
		if c.Platform != "" {
			args = append(args, "--platform", c.Platform, "--implementation", "cp", "--python-version", "3.12")
		}
		python := "python3"
		if _, err := exec.LookPath(python); err != nil {
			python = "python"
		}
		err = client(ctx, dir, python, append(args, c.PyPI)...)
	case c.Maven != "":
		// The client's own repository is left alone: it would keep the package.
		err = client(ctx, dir, "mvn", "--batch-mode", "--quiet", "-Dmaven.repo.local="+filepath.Join(dir, "repository"),
			"dependency:copy", "-Dartifact="+c.Maven, "-DoutputDirectory="+dir)
	}
	if err != nil {
		return "", err
	}
	for _, pattern := range []string{"*.tgz", "*.whl", "*.jar"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return "", err
		}
		if len(found) == 1 {
			return found[0], nil
		}
	}
	return "", errors.New("the client brought no package")
}

// client runs a package client in dir.
func client(ctx context.Context, dir, name string, args ...string) error {
	if _, err := exec.LookPath(name); err != nil {
		return fmt.Errorf("%s is not installed", name)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.WaitDelay = 5 * time.Second // its children may hold its output open
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, complaint(out.String()))
	}
	return nil
}

// complaint returns the line of a client's output that tells most: the first
// that speaks of an error, or else the first.
func complaint(out string) string {
	first := ""
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if strings.Contains(strings.ToLower(line), "error") {
			return line
		}
		first = cmp.Or(first, line)
	}
	return cmp.Or(first, "no message")
}

// openMember opens one file in an archive, which is a zip unless its name says
// tar.
func openMember(archive, member string) (io.ReadCloser, error) {
	f, err := os.Open(archive)
	if err != nil {
		return nil, err
	}
	r, err := memberOf(f, member)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", filepath.Base(archive), err)
	}
	return struct {
		io.Reader
		io.Closer
	}{r, f}, nil
}

func memberOf(f *os.File, member string) (io.Reader, error) {
	if strings.HasSuffix(f.Name(), ".tgz") {
		unzipped, err := gzip.NewReader(f)
		if err != nil {
			return nil, err
		}
		tr := tar.NewReader(unzipped)
		for {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				return nil, fmt.Errorf("it has no file %s", member)
			}
			if err != nil {
				return nil, err
			}
			if path.Clean(h.Name) == member && h.Typeflag == tar.TypeReg {
				return tr, nil
			}
		}
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	z, err := zip.NewReader(f, info.Size())
	if err != nil {
		return nil, err
	}
	return z.Open(member)
}

// Limits of a download: a machine without a network must find out soon, and a
// server that stops sending must not be waited for.
const (
	connectTimeout = 4 * time.Second
	stallTimeout   = 30 * time.Second
	maxResumes     = 3
)

// download fetches url into in. It continues a download that broke off, its
// own or that of an earlier process.
func download(ctx context.Context, url string, in *install, progress func(done int64)) error {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialContext = (&net.Dialer{Timeout: connectTimeout}).DialContext
	transport.TLSHandshakeTimeout = connectTimeout
	transport.ResponseHeaderTimeout = stallTimeout
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}

	var last int64
	for resumes := 0; ; resumes++ {
		offset, err := in.Seek(0, io.SeekEnd)
		if err != nil {
			return err
		}
		if offset >= in.f.Size {
			offset = 0 // not a part of it
		}
		if resumes > 0 && offset <= last {
			resumes = maxResumes // no progress
		}
		last = offset
		err = get(ctx, client, url, in, offset, progress)
		if err == nil || ctx.Err() != nil || resumes >= maxResumes || !errors.Is(err, errBroken) {
			return err
		}
	}
}

// errBroken is returned when the connection ended before the file did.
var errBroken = errors.New("connection lost")

// get makes one request for the bytes of url from offset.
func get(ctx context.Context, client *http.Client, url string, in *install, offset int64, progress func(done int64)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		offset = 0
	case http.StatusPartialContent:
		if !strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", offset)) {
			return fmt.Errorf("the server sent the wrong range %q", resp.Header.Get("Content-Range"))
		}
	case http.StatusRequestedRangeNotSatisfiable:
		if err := in.Truncate(0); err != nil {
			return err
		}
		return fmt.Errorf("%w: the server has no more of it", errBroken)
	default:
		return errors.New(resp.Status)
	}
	stall := time.AfterFunc(stallTimeout, func() { cancel(fmt.Errorf("nothing came for %s", stallTimeout)) })
	defer stall.Stop()
	err = in.copyAt(ctx, body{resp.Body, stall}, offset, progress)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w: %w", errBroken, context.Cause(ctx))
	}
	return err
}

// A body is a response's body that postpones its stall timer as bytes come.
type body struct {
	r     io.Reader
	stall *time.Timer
}

func (b body) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.stall.Reset(stallTimeout)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %w", errBroken, err)
	}
	return n, err
}
