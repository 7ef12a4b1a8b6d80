package server_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
	"ragprocessor/store"
)

// browser starts a browser. Whatever its console complains of, such as a
// breach of the page's own security policy, fails the test.
func browser(t *testing.T) context.Context {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		if os.Getenv("RAG_REQUIRE_BROWSER") != "" {
			t.Fatal("no Chromium is installed, and RAG_REQUIRE_BROWSER is set")
		}
		t.Skip("no Chromium is installed")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx,
		chromedp.ExecPath(path), chromedp.Headless, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.Flag("disable-dev-shm-usage", true), chromedp.UserDataDir(t.TempDir()))
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	var mu sync.Mutex
	var complaints []string
	chromedp.ListenTarget(ctx, func(ev any) {
		mu.Lock()
		defer mu.Unlock()
		switch ev := ev.(type) {
		case *runtime.EventExceptionThrown:
			complaints = append(complaints, ev.ExceptionDetails.Error())
		case *log.EventEntryAdded:
			complaints = append(complaints, ev.Entry.Text+" "+ev.Entry.URL)
		}
	})
	t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		if len(complaints) > 0 {
			t.Errorf("the browser's console says:\n%s", strings.Join(complaints, "\n"))
		}
	})
	if err := chromedp.Run(ctx, log.Enable(), chromedp.EmulateViewport(1100, 900)); err != nil {
		t.Fatal(err)
	}
	return ctx
}

// shoot keeps a picture of the page, light, dark and narrow, in the folder
// RAG_SCREENSHOTS, if that is set.
func shoot(t *testing.T, ctx context.Context, name string) {
	t.Helper()
	dir := os.Getenv("RAG_SCREENSHOTS")
	if dir == "" {
		return
	}
	for _, v := range []struct {
		suffix, scheme string
		width          int64
	}{{"", "light", 1100}, {"-dark", "dark", 1100}, {"-narrow", "light", 400}} {
		var png []byte
		err := chromedp.Run(ctx, chromedp.EmulateViewport(v.width, 900),
			emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: v.scheme}}),
			chromedp.FullScreenshot(&png, 100))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name+v.suffix+".png"), png, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := chromedp.Run(ctx, chromedp.EmulateViewport(1100, 900), emulation.SetEmulatedMedia()); err != nil {
		t.Fatal(err)
	}
}

// A person uploads a file and watches it fail, retries it, and finds it, on a
// page that is never loaded again until the search.
func TestBrowser(t *testing.T) {
	ctx := browser(t)
	w := newWorld(t)
	stop := w.serve()
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	run := func(what string, actions ...chromedp.Action) {
		t.Helper()
		if err := chromedp.Run(ctx, actions...); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	shown := func(selector string) chromedp.Action { return chromedp.WaitVisible(selector, chromedp.ByQuery) }
	// The live stream may put a new element in the place of one that was just
	// found, so that one is found and clicked in one step.
	press := func(selector string) chromedp.Action {
		return chromedp.Evaluate("document.querySelector("+strconv.Quote(selector)+").click()", nil)
	}
	file := filepath.Join(t.TempDir(), "Harbour works.md")
	if err := os.WriteFile(file, []byte("# The harbour\n\nIt was deepened in 1962.\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	run("open", chromedp.Navigate(w.url), shown(`#live[data-state=live]`), shown(`#empty`), chromedp.Evaluate(`window.kept = true`, nil))
	shoot(t, ctx, "empty")
	run("upload", chromedp.SetUploadFiles(`#file`, []string{file}, chromedp.ByQuery), shown(`article[data-stage=pending]`), chromedp.WaitNotVisible(`#empty`, chromedp.ByQuery))

	a := w.claim()
	run("claimed", shown(`article[data-stage=downloading]`))
	w.advance(a, lifecycle.Downloaded)
	a.SetProgress("pages", 3, 40)
	if err := w.Store.Beat(t.Context(), []*store.Attempt{a}, true); err != nil {
		t.Fatal(err)
	}
	run("progress", shown(`article[data-stage=processing] progress[aria-valuetext="3 of 40 pages"]`), shown(`.steps .now`))
	if err := a.Fail(t.Context(), &rag.Failure{Stage: rag.Processing, Code: "password_required", Fault: rag.FaultFile, Final: true,
		Reason: "The file is protected by a password", Action: "Remove the password and send it again"}); err != nil {
		t.Fatal(err)
	}
	var notice string
	run("failed", shown(`article[data-stage=failed] .notice.bad`), chromedp.Text(`article .notice.bad`, &notice, chromedp.ByQuery))
	for _, want := range []string{"protected by a password", "Remove the password", "the file is at fault"} {
		if !strings.Contains(notice, want) {
			t.Errorf("the failure is told as %q, want %q in it", notice, want)
		}
	}
	var kept bool
	run("not reloaded", chromedp.Evaluate(`window.kept === true`, &kept))
	if !kept {
		t.Error("the page was loaded again")
	}

	run("retry", press(`article button.primary`), shown(`#live[data-state=live]`), shown(`article[data-stage=pending]`))
	a = w.claim()
	w.advance(a, lifecycle.Downloaded, lifecycle.Processed)
	run("cancel", shown(`article[data-stage=embedding]`), press(`.actions button`), shown(`article .steps .held`))
	if err := w.Store.Beat(t.Context(), []*store.Attempt{a}, true); err != nil {
		t.Fatal(err)
	}
	if err := a.AcknowledgeCancel(t.Context()); err != nil {
		t.Fatal(err)
	}
	run("cancelled", shown(`article[data-stage=cancelled]`), press(`article button.primary`), shown(`article[data-stage=pending]`))
	w.work("The harbour was deepened in 1962.", "Ships of all sizes may enter it.")
	run("completed", shown(`article[data-stage=completed] .steps li.done:last-child`))
	gallery(w)
	run("gallery", shown(`article[data-lost]`))
	shoot(t, ctx, "list")

	var marked, cited string
	run("search", chromedp.SendKeys(`#q`, "harbour\r", chromedp.ByQuery), shown(`.hit mark`),
		chromedp.Text(`.hit mark`, &marked, chromedp.ByQuery), chromedp.Text(`.hit .cite`, &cited, chromedp.ByQuery))
	if marked != "harbour" || !strings.Contains(cited, "Harbour works.md") || !strings.Contains(cited, "p. 1") {
		t.Errorf("found %q, marked %q", cited, marked)
	}
	shoot(t, ctx, "search")

	run("one job", chromedp.Navigate(w.url), shown(`article[data-name="Harbour works.md"]`), press(`article[data-name="Harbour works.md"] h3 a`), shown(`.timeline`), shown(`#live[data-state=live]`))
	shoot(t, ctx, "job")
	run("chunks", chromedp.Click(`a[id^=chunks-]`, chromedp.ByQuery), shown(`#chunks .chunk`))
	shoot(t, ctx, "chunks")
	run("delete", chromedp.Click(`.danger summary`, chromedp.ByQuery), chromedp.Click(`.danger button`, chromedp.ByQuery), shown(`#upload`), chromedp.WaitNotPresent(`article[data-name="Harbour works.md"]`, chromedp.ByQuery))
}

// gallery adds jobs in states that are rarely seen side by side.
func gallery(w *world) {
	w.t.Helper()
	w.enqueue("Contract 2019 (signed).docx")
	w.enqueue("Survey of the coast.pdf")
	a := w.claim()
	w.advance(a, lifecycle.Downloaded)
	if err := a.Fail(w.t.Context(), &rag.Failure{Stage: rag.Processing, Code: "damaged", Fault: rag.FaultFile, Final: true,
		Reason: "The document is damaged: its main part is missing", Action: "Open it in Word, save it again and send that"}); err != nil {
		w.t.Fatal(err)
	}
	a = w.claim()
	w.advance(a, lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded)
	w.finish(a, []rag.Warning{{Part: "page 7", Reason: "The picture has no text"}}, "one", "two")
	w.enqueue("Annual report with quite a long name, of the kind that people give to files when they are in no hurry at all.pdf")
	a = w.claim()
	w.advance(a, lifecycle.Downloaded, lifecycle.Processed)
	if err := a.Retry(w.t.Context(), &rag.Failure{Stage: rag.Embedding, Code: "model_busy", Fault: rag.FaultService,
		Reason: "The embedding service does not answer", Action: "Nothing to do: it is tried again"}, time.Hour); err != nil {
		w.t.Fatal(err)
	}
	w.enqueue("Film script.txt")
	w.advance(w.claim(), lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded)
	w.enqueue("Slides.pptx")
	a = w.claim()
	w.advance(a, lifecycle.Downloaded, lifecycle.Processed)
	w.db.Skip(time.Minute) // the worker of the film script gives no sign of life
	a.SetProgress("chunks", 180, 412)
	if err := w.Store.Beat(w.t.Context(), []*store.Attempt{a}, true); err != nil {
		w.t.Fatal(err)
	}
	w.enqueue("Notes from the meeting.md")
}
