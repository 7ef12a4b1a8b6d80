package server_test

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"ragprocessor/lifecycle"
	"ragprocessor/rag"
)

// post sends a form as a browser without script does, and returns the page
// that it is led to.
func (w *world) post(path, kind, body string) answer {
	w.t.Helper()
	a := w.do("POST", path, strings.NewReader(body), "Content-Type", kind, "Accept", "text/html", "Sec-Fetch-Site", "same-origin")
	if a.StatusCode != http.StatusSeeOther {
		return a
	}
	to, _, _ := strings.Cut(a.Header.Get("Location"), "#")
	return w.do("GET", to, nil, "Accept", "text/html")
}

const formKind = "application/x-www-form-urlencoded"

func TestPagesWithoutScript(t *testing.T) {
	w := newWorld(t).start()
	if a := w.do("GET", "/", nil); !strings.Contains(a.body, "Nothing here yet") {
		t.Errorf("the first page:\n%s", a.body)
	}
	body, kind := form(t, "a.txt", "text", "b.txt", "text")
	if a := w.post("/upload", kind, read(t, body)); !strings.Contains(a.body, "2 files were added") || !strings.Contains(a.body, ">a.txt</a>") {
		t.Errorf("after the upload:\n%s", a.body)
	}
	body, kind = form(t, "a.txt", "text")
	if a := w.post("/upload", kind, read(t, body)); !strings.Contains(a.body, "1 file was here already") {
		t.Errorf("after the upload of the same:\n%s", a.body)
	}
	a := w.claim()
	j := a.Job()
	if err := a.Fail(t.Context(), &rag.Failure{Stage: rag.Downloading, Code: "x", Reason: "It is locked", Fault: rag.FaultFile, Action: "Unlock it", Final: true}); err != nil {
		t.Fatal(err)
	}
	failed := w.do("GET", "/?stage=failed", nil).body
	for _, want := range []string{"It is locked.", "Unlock it.", "the file is at fault", `action="/jobs/` + j.ID + `/retry"`, `value="/?stage=failed"`} {
		if !strings.Contains(failed, want) {
			t.Errorf("no %q in:\n%s", want, failed)
		}
	}
	if strings.Contains(failed, ">b.txt</a>") {
		t.Error("the filter shows a job that did not fail")
	}
	if a := w.post("/jobs/"+j.ID+"/retry", formKind, url.Values{"back": {"/?stage=failed"}}.Encode()); a.Request.URL.RawQuery != "stage=failed" || !strings.Contains(a.body, "No document is like this") {
		t.Errorf("after the retry, at %s:\n%s", a.Request.URL, a.body)
	}
	if a := w.post("/jobs/"+j.ID+"/cancel", formKind, url.Values{"back": {"/jobs/" + j.ID}}.Encode()); a.Request.URL.Path != "/jobs/"+j.ID || !strings.Contains(a.body, `data-stage="cancelled"`) {
		t.Errorf("after the cancel, at %s:\n%s", a.Request.URL, a.body)
	}
	if a := w.post("/jobs/"+j.ID+"/cancel", formKind, ""); a.StatusCode != http.StatusConflict || !strings.Contains(a.body, "nothing to cancel") {
		t.Errorf("a second cancel: %d\n%s", a.StatusCode, a.body)
	}
	w.work("The harbour was deepened.", "Ships enter it.")
	if a := w.do("GET", "/?q=harbour", nil); !strings.Contains(a.body, "<mark>harbour</mark>") || !strings.Contains(a.body, `/file#page=1">b.txt</a>`) {
		t.Errorf("search:\n%s", a.body)
	}
	if a := w.do("GET", "/?q=harbour&mode=magic", nil); a.StatusCode != 200 || !strings.Contains(a.body, "There is no mode") {
		t.Errorf("a search that cannot be: %d\n%s", a.StatusCode, a.body)
	}
	if a := w.post("/documents/"+j.DocumentID+"/delete", formKind, ""); a.StatusCode != 200 || strings.Contains(a.body, ">a.txt</a>") {
		t.Errorf("after the delete:\n%s", a.body)
	}
}

func TestUploadFormErrors(t *testing.T) {
	w := newWorld(t)
	w.MaxUpload = 10
	w.start()
	body, kind := form(t, "good.txt", "text", "large.txt", "more than ten bytes")
	a := w.post("/upload", kind, read(t, body))
	if a.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(a.body, "<strong>large.txt</strong>: File too large") || !strings.Contains(a.body, "<strong>good.txt</strong>: added") {
		t.Errorf("%d\n%s", a.StatusCode, a.body)
	}
}

// A button leads back to where it was, and nowhere else.
func TestBack(t *testing.T) {
	w := newWorld(t).start()
	for back, want := range map[string]string{
		"/?stage=pending":       "/?stage=pending",
		"/jobs/1":               "/jobs/1",
		"":                      "/",
		"https://evil.example/": "/",
		"//evil.example":        "/",
		`/\evil.example`:        "/",
		"/\t/evil.example":      "/",
		"javascript:alert(1)":   "/",
	} {
		j := w.enqueue("a " + back)
		a := w.do("POST", "/jobs/"+j.ID+"/cancel", strings.NewReader(url.Values{"back": {back}}.Encode()), "Content-Type", formKind)
		if got := a.Header.Get("Location"); got != want || a.StatusCode != http.StatusSeeOther {
			t.Errorf("back %q leads to %q (%d), want %q", back, got, a.StatusCode, want)
		}
	}
}

func TestPager(t *testing.T) {
	w := newWorld(t).start()
	for _, name := range []string{"a.txt", "b.txt", "c.txt"} {
		w.enqueue(name)
	}
	first := w.do("GET", "/?limit=2", nil).body
	next := regexp.MustCompile(`href="([^"]+)" rel="next"`).FindStringSubmatch(first)
	if next == nil || strings.Contains(first, ">a.txt</a>") {
		t.Fatalf("the first page:\n%s", first)
	}
	path, _, _ := strings.Cut(html.UnescapeString(next[1]), "#")
	second := w.do("GET", path, nil).body
	if !strings.Contains(second, ">a.txt</a>") || strings.Contains(second, ">b.txt</a>") || strings.Contains(second, "data-feed") {
		t.Errorf("the second page:\n%s", second)
	}
}

func TestChunkPager(t *testing.T) {
	w := newWorld(t).start()
	j := w.upload("a.txt", "text")
	texts := make([]string, 30)
	for i := range texts {
		texts[i] = "chunk"
	}
	w.work(texts...)
	first := w.do("GET", "/jobs/"+j.ID+"?chunks=0", nil).body
	if strings.Count(first, "<li value=") != 25 || !strings.Contains(first, `href="?chunks=25#chunks"`) {
		t.Errorf("the first page:\n%s", first)
	}
	if second := w.do("GET", "/jobs/"+j.ID+"?chunks=25", nil).body; strings.Count(second, "<li value=") != 5 || strings.Contains(second, `rel="next"`) {
		t.Errorf("the second page:\n%s", second)
	}
}

// No page holds what its own policy forbids, an ID twice, or a label of
// nothing; and what strangers wrote stays text.
func TestPagesAreSound(t *testing.T) {
	w := newWorld(t).start()
	hostile := `"><script>alert(1)</script><img src=x onerror=alert(1)>.txt`
	j := w.upload(url.QueryEscape(hostile), "text")
	a := w.claim()
	w.advance(a, lifecycle.Downloaded, lifecycle.Processed, lifecycle.Embedded)
	w.finish(a, []rag.Warning{{Part: hostile, Reason: hostile}}, hostile+" harbour")
	w.enqueue("waiting")
	for _, path := range []string{"/", "/?q=harbour", "/?q=" + url.QueryEscape(hostile), "/?name=" + url.QueryEscape(hostile), "/jobs/" + j.ID + "?chunks=0", "/nothing", "/?stage=" + url.QueryEscape(hostile)} {
		body := w.do("GET", path, nil, "Accept", "text/html").body
		root, err := html.Parse(strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		ids, labels := map[string]bool{}, []string{}
		for n := range root.Descendants() {
			if n.Type != html.ElementNode {
				continue
			}
			if n.Data == "style" || n.Data == "img" || n.Data == "script" && (n.FirstChild != nil || len(n.Attr) != 2) {
				t.Errorf("%s: an element %s %v", path, n.Data, n.Attr)
			}
			for _, at := range n.Attr {
				switch {
				case at.Key == "style" || strings.HasPrefix(at.Key, "on") || strings.HasPrefix(at.Val, "javascript:"):
					t.Errorf("%s: <%s %s=%q>", path, n.Data, at.Key, at.Val)
				case at.Key == "id" && ids[at.Val]:
					t.Errorf("%s: two elements have the ID %s", path, at.Val)
				case at.Key == "id":
					ids[at.Val] = true
				case at.Key == "for" || at.Key == "aria-labelledby":
					labels = append(labels, at.Val)
				}
			}
		}
		for _, l := range labels {
			if !ids[l] {
				t.Errorf("%s: a label of %s, which is not there", path, l)
			}
		}
	}
}

func TestStatic(t *testing.T) {
	w := newWorld(t).start()
	page := w.do("GET", "/", nil).body
	for _, m := range regexp.MustCompile(`/static/[^"]+`).FindAllString(page, -1) {
		if a := w.do("GET", m, nil); a.StatusCode != 200 || a.body == "" || a.Header.Get("Content-Type") == "" {
			t.Errorf("%s: %d %v", m, a.StatusCode, a.Header)
		}
	}
}

// TestFilesInFiles looks at an archive from its page and from that of a file in it.
func TestFilesInFiles(t *testing.T) {
	w := newWorld(t).start()
	holder := w.upload("a.zip", "archive")
	h, err := w.Store.Job(t.Context(), holder.ID)
	if err != nil {
		t.Fatal(err)
	}
	part := &rag.Job{UserID: h.UserID, Object: rag.PartOf(h, rag.Child{Path: "<one>.txt"}), Generation: 1, Filename: "a.zip/<one>.txt", Size: 1}
	if _, err := w.Store.Enqueue(t.Context(), part); err != nil {
		t.Fatal(err)
	}
	if a := w.do("GET", "/jobs/"+holder.ID, nil); !strings.Contains(a.body, `<a href="/jobs/`+part.ID+`">a.zip/&lt;one&gt;.txt</a>`) || strings.Contains(a.body, `id="holder"`) {
		t.Errorf("the archive:\n%s", a.body)
	}
	if a := w.do("GET", "/jobs/"+part.ID, nil); !strings.Contains(a.body, `<a id="holder" href="/jobs/`+holder.ID+`">a.zip</a>`) || strings.Contains(a.body, `id="parts"`) {
		t.Errorf("the file in it:\n%s", a.body)
	}
	for query, want := range map[string]int{"parent=" + h.DocumentID: 1, "parent=" + part.DocumentID: 0, "": 2} {
		if a := w.do("GET", "/api/v1/jobs?"+query, nil); strings.Count(a.body, `"document_id"`) != want {
			t.Errorf("%q: want %d jobs in\n%s", query, want, a.body)
		}
	}
	if a := w.do("GET", "/api/v1/jobs?parent=1", nil); a.StatusCode != http.StatusBadRequest {
		t.Errorf("parent=1: %d", a.StatusCode)
	}
}
