package source

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"unicode/utf8"

	"ragprocessor/rag"
)

// The scheme and the buckets of what is on this machine.
const (
	Scheme        = "file"
	FilesBucket   = "files"   // read in place; see [Files]
	UploadsBucket = "uploads" // kept by the engine; see [Uploads]
)

// FileObject returns the object of the user's file at absPath, an absolute
// path. It does not look at the file. The object's name is the user's ID, a
// slash, and the path without its leading slash; on Windows C:\a\b becomes
// C:/a/b, and paths of other forms (\\server\share, \\?\) are refused.
func FileObject(user, absPath string) (rag.Object, error) {
	refuse := func(reason, action string) (rag.Object, error) {
		return rag.Object{}, rag.BadFile("unsupported_path", reason, action, fmt.Errorf("path %q", absPath))
	}
	if !validUser(user) {
		return rag.Object{}, fmt.Errorf("file object: invalid user ID %q", user)
	}
	if !filepath.IsAbs(absPath) {
		return rag.Object{}, fmt.Errorf("file object: path %q is not absolute", absPath)
	}
	if !utf8.ValidString(absPath) || strings.ContainsRune(absPath, 0) {
		return refuse("The file's name is not valid UTF-8", "Rename the file")
	}
	name := filepath.Clean(absPath)
	if runtime.GOOS == "windows" {
		if !drivePath(name) {
			return refuse("Network and device paths are not supported", "Map the share to a drive letter and use that")
		}
		name = filepath.ToSlash(name)
	}
	name = strings.TrimPrefix(name, "/")
	if name == "" {
		return refuse("The path is the root of the file system", "Name a file")
	}
	return rag.Object{Scheme: Scheme, Bucket: FilesBucket, Name: user + "/" + name}, nil
}

// PathOf returns the path that [FileObject] made object of.
func PathOf(object rag.Object) (string, error) {
	if object.Scheme != Scheme || object.Bucket != FilesBucket {
		return "", invalidObject(object, "it is not a file read in place")
	}
	_, rest, err := splitName(object)
	if err != nil {
		return "", err
	}
	if path.Clean("/"+rest) != "/"+rest || strings.ContainsRune(rest, 0) {
		return "", invalidObject(object, "its path is not in its simplest form")
	}
	if runtime.GOOS == "windows" {
		p := filepath.FromSlash(rest)
		if !drivePath(p) || filepath.Clean(p) != p {
			return "", invalidObject(object, "its path does not begin with a drive letter")
		}
		return p, nil
	}
	return "/" + rest, nil
}

// drivePath reports whether p begins with a drive letter, as in C:\a.
func drivePath(p string) bool {
	return len(p) >= 3 && p[1] == ':' && (p[2] == '\\' || p[2] == '/') && ('a' <= p[0]|0x20 && p[0]|0x20 <= 'z')
}

// splitName splits the name of object into its user and the rest.
func splitName(object rag.Object) (user, rest string, err error) {
	user, rest, _ = strings.Cut(object.Name, "/")
	if !validUser(user) || rest == "" {
		return "", "", invalidObject(object, "its name does not begin with a user ID and a slash")
	}
	return user, rest, nil
}

// validUser reports whether user can be a user ID, and so a folder's name.
func validUser(user string) bool {
	if user == "" || len(user) > 64 {
		return false
	}
	for _, r := range user {
		if !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_') {
			return false
		}
	}
	return true
}

func invalidObject(object rag.Object, why string) error {
	return &rag.Error{
		Code: "invalid_object", Fault: rag.FaultSystem, Permanent: true,
		Reason: "The stored name of the file is not valid: " + why,
		Action: "Delete the document and add the file again",
		Err:    errors.New(object.URI()),
	}
}
