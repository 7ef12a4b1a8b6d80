package server

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"ragprocessor/rag"
)

var (
	errNoRoute     = &rag.Error{Code: "not_found", Fault: rag.FaultFile, Permanent: true, Reason: "There is nothing at this address for this method", Action: "Look at the address; the API is below /api/v1/"}
	errCrossOrigin = &rag.Error{Code: "cross_origin", Fault: rag.FaultFile, Permanent: true, Reason: "The request came from another web site", Action: "Use this server's own page, or a program that is not a browser"}
	errHost        = &rag.Error{Code: "unknown_host", Fault: rag.FaultSystem, Permanent: true, Reason: "The server does not answer to this name", Action: "Use localhost, or have the operator add the name to the allowed hosts"}
	errNoUser      = &rag.Error{Code: "user_required", Fault: rag.FaultSystem, Permanent: true, Reason: "The request names no user", Action: "Sign in; the proxy in front of the server must set X-User-ID"}
)

func badRequest(code, reason, action string) error {
	return &rag.Error{Code: code, Fault: rag.FaultFile, Reason: reason, Action: action, Permanent: true}
}

// An errorView is the body of every answer that is an error, under the key
// "error". Fault says whose it is: "file" (the file or the request), "service"
// (one that the engine depends on) or "system" (the engine or its machine).
type errorView struct {
	Code      string    `json:"code"`
	Reason    string    `json:"reason"`
	Fault     rag.Fault `json:"fault"`
	Action    string    `json:"action"`
	RequestID string    `json:"request_id,omitempty"`
}

// statusOf returns the HTTP status that err is, and what people are told.
func statusOf(err error) (int, errorView) {
	e, ok := errors.AsType[*rag.Error](err)
	if !ok && errors.Is(err, rag.ErrNotFound) {
		return http.StatusNotFound, errorView{Code: "not_found", Fault: rag.FaultFile,
			Reason: "There is no such document or job", Action: "It may have been deleted; look at the list"}
	}
	if errors.Is(err, rag.ErrStale) {
		return http.StatusConflict, errorView{Code: "conflict", Fault: rag.FaultFile,
			Reason: "The job changed at the same moment", Action: "Look at it again, then repeat the request if it is still wanted"}
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return http.StatusRequestEntityTooLarge, errorView{Code: "request_too_large", Fault: rag.FaultFile,
			Reason: "The request is too large", Action: "Send fewer files at once"}
	}
	if !ok {
		v := errorView{Code: "internal", Fault: rag.FaultSystem, Reason: "Internal error",
			Action: "Repeat the request; if it fails again, give the request's ID to the operator, whose log has the cause"}
		return http.StatusInternalServerError, v
	}
	v := errorView{Code: e.Code, Reason: e.Reason, Fault: e.Fault, Action: e.Action}
	switch e.Code {
	case "not_found", "file_gone":
		return http.StatusNotFound, v
	case "already_ended", "not_ended":
		return http.StatusConflict, v
	case "too_large":
		return http.StatusRequestEntityTooLarge, v
	case "unsupported_format", "unsupported_request":
		return http.StatusUnsupportedMediaType, v
	case "cross_origin":
		return http.StatusForbidden, v
	case "unknown_host":
		return http.StatusMisdirectedRequest, v
	case "user_required":
		return http.StatusUnauthorized, v
	case "disk_full", "not_ready":
		return http.StatusServiceUnavailable, v
	}
	switch e.Fault {
	case rag.FaultFile:
		return http.StatusBadRequest, v
	case rag.FaultService:
		return http.StatusServiceUnavailable, v
	}
	return http.StatusInternalServerError, v
}

// statusGone counts requests whose client went away before the answer.
const statusGone = 499

// fail answers with err: as a page to a browser, as JSON to everyone else.
// Its cause goes to the log only.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, v := statusOf(err)
	if r.Context().Err() != nil && errors.Is(err, context.Canceled) {
		status = statusGone
	}
	v.RequestID = w.Header().Get("X-Request-ID")
	if status >= http.StatusInternalServerError {
		s.Log.Error("request failed", slog.String("request_id", v.RequestID), slog.String("method", r.Method),
			slog.String("path", r.URL.Path), slog.Int("status", status), slog.Any("error", err))
	}
	if rec, ok := w.(*recorder); ok && rec.status != 0 {
		return // the answer has begun; the client sees it end early
	}
	if isPage(r) {
		s.render(w, r, status, "error", errorPage{v, status})
		return
	}
	writeJSON(w, status, map[string]errorView{"error": v})
}

// isPage reports whether the request is a browser's for a page.
func isPage(r *http.Request) bool {
	return !strings.HasPrefix(r.URL.Path, "/api/") && strings.Contains(r.Header.Get("Accept"), "text/html")
}

// writeJSON answers with v.
func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // views have no values that JSON cannot write
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(append(b, '\n'))
}
