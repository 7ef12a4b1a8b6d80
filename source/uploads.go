package source

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"ragprocessor/rag"
)

// Uploads is the store, and the source, of files that were sent to the
// engine: one folder for each user in Dir. Names are made as the incumbent's
// are, so that objects may move between it and a bucket. It is safe for
// concurrent use, by several processes too.
type Uploads struct {
	Dir string // made if it does not exist
}

// An Upload is a file that [Uploads.Save] keeps.
type Upload struct {
	Object      rag.Object
	Size        int64  // bytes
	SHA256      string // of the bytes, in hex
	Fingerprint string // as Open will report it
	SavedAt     time.Time
}

// incoming begins the names of files that are being received. The tilde keeps
// it apart from every name that UploadName makes.
const incoming = "incoming~"

// Save keeps the bytes of r, at most maxBytes of them (0 means no limit), as
// the user's file of that name. When it returns without an error the bytes are
// on disk and will survive a power failure; with one, nothing is left behind.
// The name is made safe (see [UploadName]); the caller keeps the original.
func (u *Uploads) Save(ctx context.Context, user, filename string, r io.Reader, maxBytes int64) (_ Upload, err error) {
	if !validUser(user) {
		return Upload{}, fmt.Errorf("save upload: invalid user ID %q", user)
	}
	if err := os.MkdirAll(u.Dir, 0o700); err != nil {
		return Upload{}, saveError(err)
	}
	root, err := os.OpenRoot(u.Dir)
	if err != nil {
		return Upload{}, saveError(err)
	}
	defer root.Close()
	if err := root.MkdirAll(user, 0o700); err != nil {
		return Upload{}, saveError(err)
	}

	temp := user + "/" + incoming + rand.Text()
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return Upload{}, saveError(err)
	}
	defer func() {
		f.Close()
		if rmErr := root.Remove(temp); rmErr != nil && !errors.Is(rmErr, fs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("save upload: %w", rmErr))
		}
	}()

	body := &reader{ctx: ctx, r: r}
	var from io.Reader = body
	if 0 < maxBytes && maxBytes < math.MaxInt64 {
		from = io.LimitReader(body, maxBytes+1)
	}
	hash := sha256.New()
	size, err := io.Copy(io.MultiWriter(f, hash), from)
	switch {
	case body.err != nil:
		return Upload{}, fmt.Errorf("save upload: receive: %w", body.err)
	case err != nil:
		return Upload{}, saveError(err)
	case maxBytes > 0 && size > maxBytes:
		return Upload{}, TooLarge(maxBytes)
	}
	if err := f.Sync(); err != nil {
		return Upload{}, saveError(err)
	}
	fi, err := f.Stat()
	if err != nil {
		return Upload{}, saveError(err)
	}

	at := time.Now()
	name := ""
	for range 1000 { // two files of one name within a millisecond
		name = UploadName(filename, at)
		if err = publish(root, temp, user+"/"+name); !errors.Is(err, fs.ErrExist) {
			break
		}
		at = at.Add(time.Millisecond)
	}
	if err != nil {
		return Upload{}, saveError(err)
	}
	if err := errors.Join(syncFolder(root, user), syncFolder(root, ".")); err != nil {
		return Upload{}, errors.Join(saveError(err), root.Remove(user+"/"+name))
	}
	return Upload{
		Object:      rag.Object{Scheme: Scheme, Bucket: UploadsBucket, Name: user + "/" + name},
		Size:        size,
		SHA256:      hex.EncodeToString(hash.Sum(nil)),
		Fingerprint: Fingerprint(fi),
		SavedAt:     at,
	}, nil
}

// publish gives the finished file its name, or returns fs.ErrExist if another
// file has it. A rename would replace that one.
func publish(root *os.Root, temp, name string) error {
	err := root.Link(temp, name)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	// The file system has no hard links.
	if _, err := root.Lstat(name); err == nil {
		return fs.ErrExist
	}
	return root.Rename(temp, name)
}

func syncFolder(root *os.Root, name string) error {
	if !syncsFolders {
		return nil
	}
	d, err := root.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Open opens an upload; see [Source].
func (u *Uploads) Open(ctx context.Context, object rag.Object, generation int64) (*Blob, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	name, err := uploadOf(object)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(u.Dir)
	if err != nil {
		return nil, openError(err)
	}
	defer root.Close()
	return openBlob(root, name)
}

// Remove removes an upload. It is no error if there is none.
func (u *Uploads) Remove(ctx context.Context, object rag.Object) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	name, err := uploadOf(object)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(u.Dir)
	if err == nil {
		defer root.Close()
		err = root.Remove(name)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove upload: %w", err)
	}
	return nil
}

// CleanUp removes what uploads that were interrupted left behind: files still
// being received that nothing was written to since before. It returns their
// number. Call it at start, with a time long enough ago that no other process
// can still be receiving, such as an hour.
func (u *Uploads) CleanUp(ctx context.Context, before time.Time) (removed int, err error) {
	root, err := os.OpenRoot(u.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("clean up uploads: %w", err)
	}
	defer root.Close()
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasPrefix(d.Name(), incoming) {
			return errors.Join(err, ctx.Err())
		}
		fi, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) || err == nil && !fi.ModTime().Before(before) {
			return nil
		}
		if err == nil {
			err = root.Remove(name)
		}
		if err == nil {
			removed++
		}
		return err
	})
	if err != nil {
		return removed, fmt.Errorf("clean up uploads: %w", err)
	}
	return removed, nil
}

// uploadOf returns the name of object in an uploads folder.
func uploadOf(object rag.Object) (string, error) {
	if object.Scheme != Scheme || object.Bucket != UploadsBucket {
		return "", invalidObject(object, "it is not an upload")
	}
	_, name, err := splitName(object)
	if err != nil {
		return "", err
	}
	if name == "." || name == ".." || strings.HasPrefix(name, incoming) || strings.ContainsAny(name, "/\\\x00") {
		return "", invalidObject(object, "it is not the name of an upload")
	}
	return object.Name, nil
}

// UploadName returns the last part of the object name of a file that was sent
// at a time: name-milliseconds.ext, as the incumbent makes it. Each character
// outside a-z, A-Z, 0-9, "." and "-" becomes "_", in the name and in its
// extension, which is what follows the last dot that is not the first
// character. Both are cut where they are very long.
func UploadName(filename string, at time.Time) string {
	var b strings.Builder
	for _, r := range filename {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '.', r == '-':
			b.WriteRune(r)
		case r > 0xFFFF: // two characters in the language of the incumbent
			b.WriteString("__")
		default:
			b.WriteByte('_')
		}
	}
	safe := b.String()
	name, ext := safe, ""
	if dot := strings.LastIndexByte(safe, '.'); dot > 0 {
		name, ext = safe[:dot], strings.TrimSuffix(safe[dot:], ".") // Windows cannot store a dot at the end
	}
	if name == "" {
		name = "file"
	}
	name, ext = name[:min(len(name), 150)], ext[:min(len(ext), 32)]
	return name + "-" + strconv.FormatInt(at.UnixMilli(), 10) + ext
}

// TooLarge returns the error of a file of more than limit bytes.
func TooLarge(limit int64) error {
	return rag.BadFile("too_large", "File too large: limit "+sizeOf(limit), "Send a smaller file, or have the operator raise the limit", nil)
}

// sizeOf writes a number of bytes for people: "100 MiB".
func sizeOf(n int64) string {
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " bytes"
	}
	f, unit := float64(n)/1024, 0
	for f >= 1024 && unit < 3 {
		f, unit = f/1024, unit+1
	}
	return strconv.FormatFloat(float64(int64(f*10))/10, 'f', -1, 64) + " " + []string{"KiB", "MiB", "GiB", "TiB"}[unit]
}

// saveError tells why an upload could not be written; all of it is the
// engine's or its machine's fault.
func saveError(err error) error {
	if IsDiskFull(err) {
		return &rag.Error{
			Code: "disk_full", Fault: rag.FaultSystem, Err: err,
			Reason: "The engine's disk is full", Action: "Free space in the data directory, then send the file again",
		}
	}
	return fmt.Errorf("save upload: %w", err)
}

// A reader reads from r until ctx ends, and remembers why it stopped early.
type reader struct {
	ctx context.Context
	r   io.Reader
	err error
}

func (r *reader) Read(p []byte) (int, error) {
	if r.err = r.ctx.Err(); r.err != nil {
		return 0, r.err
	}
	n, err := r.r.Read(p)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}
