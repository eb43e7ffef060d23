package v2http

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/kvorum/kvorum/server/state"
)

const (
	membersPath  = "/v2/members"
	machinesPath = "/v2/machines"
)

// jsonMember is a member as /v2/members shows it.
type jsonMember struct {
	ID         string   `json:"id"`
	Name       string   `json:"name"`
	PeerURLs   []string `json:"peerURLs"`
	ClientURLs []string `json:"clientURLs"`
}

func memberJSON(m state.Member) jsonMember {
	return jsonMember{
		ID: hexID(uint64(m.ID)), Name: m.Name,
		PeerURLs: append([]string{}, m.PeerURLs...), ClientURLs: append([]string{}, m.ClientURLs...),
	}
}

func hexID(id uint64) string { return strconv.FormatUint(id, 16) }

// serveMachines serves /v2/machines: all client URLs.
func (h *Handler) serveMachines(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		notAllowed(w, "GET,HEAD")
		return
	}
	var urls []string
	for _, m := range h.machine.Members() {
		urls = append(urls, m.ClientURLs...)
	}
	slices.Sort(urls)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, strings.Join(urls, ", ")) // the reader has gone: nothing to tell it
}

// serveMembers serves /v2/members and what is below it.
func (h *Handler) serveMembers(w http.ResponseWriter, r *http.Request) {
	if !isOneOf(r.Method, "GET,POST,DELETE,PUT") {
		notAllowed(w, "GET,POST,DELETE,PUT")
		return
	}
	h.answerHeader(w)
	name := strings.Trim(strings.TrimPrefix(r.URL.Path, membersPath), "/")
	var err error
	if r.Method == http.MethodGet {
		err = h.readMembers(w, name)
	} else {
		err = h.changeMembers(w, r, name)
	}
	if err != nil {
		writeFailure(w, err)
	}
}

func (h *Handler) readMembers(w http.ResponseWriter, name string) error {
	switch name {
	case "":
		all := []jsonMember{}
		for _, m := range h.machine.Members() {
			all = append(all, memberJSON(m))
		}
		writeJSON(w, http.StatusOK, struct {
			Members []jsonMember `json:"members"`
		}{all})
		return nil
	case "leader":
		m, ok := h.machine.Member(state.MemberID(h.member.Leader()))
		if !ok {
			return &messageError{http.StatusServiceUnavailable, "During election"}
		}
		writeJSON(w, http.StatusOK, memberJSON(m))
		return nil
	}
	return &messageError{http.StatusNotFound, "Not found"}
}

// changeMembers serves POST, PUT and DELETE, which root alone may do.
func (h *Handler) changeMembers(w http.ResponseWriter, r *http.Request, name string) error {
	if _, err := h.root(r); err != nil {
		return err
	}
	if r.Method == http.MethodPost {
		return h.addMember(w, r)
	}
	if name == "" {
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
		return nil
	}
	id, err := strconv.ParseUint(name, 16, 64)
	if err != nil {
		return noSuchMember(name)
	}
	if r.Method == http.MethodDelete {
		err = h.removeMember(r, id)
	} else {
		err = h.updateMember(r, id)
	}
	if err != nil {
		return memberFailure(err, name)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func noSuchMember(name string) error {
	return &messageError{http.StatusNotFound, "No such member: " + name}
}

func (h *Handler) addMember(w http.ResponseWriter, r *http.Request) error {
	urls, err := readPeerURLs(r)
	if err != nil {
		return err
	}
	m, err := h.member.AddMember(r.Context(), urls, false)
	if err != nil {
		return memberFailure(err, "")
	}
	writeJSON(w, http.StatusCreated, memberJSON(m))
	return nil
}

func (h *Handler) updateMember(r *http.Request, id uint64) error {
	urls, err := readPeerURLs(r)
	if err != nil {
		return err
	}
	return h.member.UpdateMember(r.Context(), id, urls)
}

func (h *Handler) removeMember(r *http.Request, id uint64) error {
	if h.machine.IsRemoved(state.MemberID(id)) {
		return state.ErrMemberRemoved
	}
	return h.member.RemoveMember(r.Context(), id)
}

// memberFailure is what a client is told of a change of members that failed;
// the reason of most stays in the log, as with etcd.
func memberFailure(err error, name string) error {
	var message *messageError
	switch {
	case errors.As(err, &message):
		return err
	case errors.Is(err, state.ErrPeerURLExists):
		return &messageError{http.StatusConflict, "membership: peerURL exists"}
	case errors.Is(err, state.ErrMemberExists):
		return &messageError{http.StatusConflict, "membership: ID exists"}
	case errors.Is(err, state.ErrMemberRemoved):
		return &messageError{http.StatusGone, "Member permanently removed: " + name}
	case errors.Is(err, state.ErrMemberNotFound):
		return noSuchMember(name)
	}
	return &messageError{http.StatusInternalServerError, "Internal Server Error"}
}

// readPeerURLs reads the body of a request that adds or changes a member.
func readPeerURLs(r *http.Request) ([]string, error) {
	given := r.Header.Get("Content-Type")
	if kind, _, err := mime.ParseMediaType(given); err != nil || kind != "application/json" {
		return nil, &messageError{http.StatusUnsupportedMediaType, "Bad Content-Type " + given + ", accept application/json"}
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, bodyBytesMax))
	if err != nil {
		return nil, &messageError{http.StatusBadRequest, err.Error()}
	}
	var in struct {
		PeerURLs []string `json:"peerURLs"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, &messageError{http.StatusBadRequest, err.Error()}
	}
	if len(in.PeerURLs) == 0 {
		return nil, &messageError{http.StatusBadRequest, "no valid URLs given"}
	}
	urls := make([]string, len(in.PeerURLs))
	for i, text := range in.PeerURLs {
		if urls[i], err = peerURL(strings.TrimSpace(text)); err != nil {
			return nil, &messageError{http.StatusBadRequest, err.Error()}
		}
	}
	slices.Sort(urls)
	return urls, nil
}

// peerURL checks one URL of a member.
func peerURL(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil {
		return "", err
	}
	wrong := ""
	switch u.Scheme {
	case "http", "https":
		if _, _, err := net.SplitHostPort(u.Host); err != nil {
			wrong = "URL address does not have the form \"host:port\": "
		} else if u.Path != "" {
			wrong = "URL must not contain a path: "
		}
	case "unix", "unixs":
	default:
		wrong = "URL scheme must be http, https, unix, or unixs: "
	}
	if wrong != "" {
		return "", errors.New(wrong + text)
	}
	return u.String(), nil
}
