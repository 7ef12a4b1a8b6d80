package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs the program, as it is shipped, as a person does.
func TestScripts(t *testing.T) {
	bin := build(t)
	models := modelEnv(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", filepath.Dir(bin)+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("RAG_DATA_DIR", filepath.Join(env.WorkDir, "data"))
			for _, kv := range models {
				k, v, _ := strings.Cut(kv, "=")
				env.Setenv(k, v)
			}
			return nil
		},
	})
}

// TestConfigPage checks docs/config.md against the settings.
func TestConfigPage(t *testing.T) {
	const path = "../../docs/config.md"
	if os.Getenv("RAG_UPDATE") != "" {
		if err := os.WriteFile(path, []byte(configMarkdown()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(configMarkdown(), string(have)); diff != "" {
		t.Errorf("%s is not what the settings say; run make generate (-want +got):\n%s", path, diff)
	}
}
