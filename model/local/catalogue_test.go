package local

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"path"
	"strings"
	"testing"
)

func TestLockFile(t *testing.T) {
	var lock lockFile
	d := json.NewDecoder(bytes.NewReader(lockJSON))
	d.DisallowUnknownFields()
	if err := d.Decode(&lock); err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for platform, ids := range lock.Runtime {
		if len(ids) == 0 {
			t.Errorf("%s has no runtime", platform)
		}
		for _, id := range ids {
			used[id] = true
		}
	}
	names, defaults := map[string]bool{}, 0
	for i, m := range lock.Models {
		used[m.Model], used[m.Tokenizer] = true, true
		if names[m.Name] {
			t.Errorf("two models are named %s", m.Name)
		}
		names[m.Name] = true
		if m.Default {
			if defaults++; i != 0 {
				t.Errorf("the default model %s is not the first", m.Name)
			}
		}
		if m.Pooling != "cls" && m.Pooling != "mean" {
			t.Errorf("%s: pooling %q", m.Name, m.Pooling)
		}
		if m.Dims < 1 || m.MaxTokens < 1 || m.Licence == "" || len(m.Languages) == 0 || m.Note == "" {
			t.Errorf("%s: something is not filled in: %+v", m.Name, m)
		}
	}
	if defaults != 1 {
		t.Errorf("%d models are the default", defaults)
	}
	ids, hashes := map[string]bool{}, map[string]bool{}
	for _, f := range lock.Files {
		if ids[f.ID] || hashes[f.SHA256] {
			t.Errorf("%s is there twice", f.ID)
		}
		ids[f.ID], hashes[f.SHA256] = true, true
		if !used[f.ID] {
			t.Errorf("%s is not used", f.ID)
		}
		if sum, err := hex.DecodeString(f.SHA256); err != nil || len(sum) != 32 || f.SHA256 != strings.ToLower(f.SHA256) {
			t.Errorf("%s: SHA-256 %q", f.ID, f.SHA256)
		}
		if f.Name != path.Base(f.Name) || f.Size < 1 || f.What == "" || f.Licence != "MIT" && f.Licence != "Apache-2.0" {
			t.Errorf("%s: something is not filled in: %+v", f.ID, f)
		}
		if len(f.Carriers) == 0 {
			t.Errorf("%s cannot be had from anywhere", f.ID)
		}
		for _, c := range f.Carriers {
			kinds := 0
			for _, address := range []string{c.URL, c.NPM, c.PyPI, c.Maven} {
				if address != "" {
					kinds++
				}
			}
			if kinds != 1 || c.URL == "" && c.Path == "" {
				t.Errorf("%s: carrier %+v", f.ID, c)
			}
			if c.URL != "" && !strings.HasPrefix(c.URL, "https://") {
				t.Errorf("%s: %s is not fetched over TLS", f.ID, c.URL)
			}
		}
	}
	for id := range used {
		if !ids[id] {
			t.Errorf("there is no file %s", id)
		}
	}
}
