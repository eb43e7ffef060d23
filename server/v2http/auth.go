package v2http

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/kvorum/kvorum/internal/must"
	pb "github.com/kvorum/kvorum/proto/etcdserverpb"
	"github.com/kvorum/kvorum/server/state"
)

const (
	authPath = "/v2/auth"
	// bodyBytesMax bounds the JSON of a request.
	bodyBytesMax = 1 << 20
)

// messageError is an error of all paths but keys.
type messageError struct {
	status int
	text   string
}

func (e *messageError) Error() string { return e.text }

func writeMessage(w http.ResponseWriter, status int, text string) {
	setJSON(w.Header())
	w.WriteHeader(status)
	body := marshal(struct {
		Message string `json:"message"`
	}{text})
	_, _ = w.Write(body) // the reader has gone: nothing to tell it
}

// marshal encodes one of the package's own types, which cannot fail.
func marshal(v any) []byte {
	body, err := json.Marshal(v)
	must.NoError(err, "encode an answer")
	return body
}

// writeFailure answers with an error of any kind.
func writeFailure(w http.ResponseWriter, err error) {
	var message *messageError
	var refused *state.V2AuthError
	switch {
	case errors.As(err, &message):
		writeMessage(w, message.status, message.text)
	case errors.As(err, &refused):
		writeMessage(w, authStatus(refused.Kind), refused.Error())
	case isDenied(err):
		w.Header().Del(clusterHeader) // strangers are not told the cluster
		writeMessage(w, http.StatusUnauthorized, "Insufficient credentials")
	default:
		writeMessage(w, http.StatusInternalServerError, err.Error())
	}
}

func authStatus(kind state.V2AuthKind) int {
	switch kind {
	case state.V2AuthMissing:
		return http.StatusNotFound
	case state.V2AuthConflict:
		return http.StatusConflict
	case state.V2AuthForbidden:
		return http.StatusForbidden
	}
	return http.StatusBadRequest
}

// writeJSON answers with v and a newline.
func writeJSON(w http.ResponseWriter, status int, v any) {
	setJSON(w.Header())
	w.WriteHeader(status)
	_, _ = w.Write(append(marshal(v), '\n')) // the reader has gone: nothing to tell it
}

// Permissions, roles and users as JSON has them.
type (
	jsonPatterns struct {
		Read  []string `json:"read"`
		Write []string `json:"write"`
	}
	jsonPermissions struct {
		KV jsonPatterns `json:"kv"`
	}
	jsonRole struct {
		Role        string           `json:"role"`
		Permissions jsonPermissions  `json:"permissions"`
		Grant       *jsonPermissions `json:"grant,omitempty"`
		Revoke      *jsonPermissions `json:"revoke,omitempty"`
	}
	jsonUser struct { // as it comes
		User     string   `json:"user"`
		Password string   `json:"password"`
		Roles    []string `json:"roles"`
		Grant    []string `json:"grant"`
		Revoke   []string `json:"revoke"`
	}
	jsonUserNames struct { // as the answer to a change
		User  string   `json:"user"`
		Roles []string `json:"roles"`
	}
	jsonUserRoles struct { // as the answer to a question
		User  string     `json:"user"`
		Roles []jsonRole `json:"roles,omitempty"`
	}
)

func roleJSON(r *state.V2Role) jsonRole {
	return jsonRole{Role: r.Name, Permissions: jsonPermissions{KV: jsonPatterns{Read: r.Read, Write: r.Write}}}
}

// serveAuth serves /v2/auth.
func (h *Handler) serveAuth(w http.ResponseWriter, r *http.Request) {
	kind, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, authPath+"/"), "/")
	serve, allow := h.authMethods(kind, name)
	switch {
	case serve == nil:
		http.NotFound(w, r)
	case strings.Contains(name, "/"):
		writeMessage(w, http.StatusBadRequest, "Invalid path")
	case !isOneOf(r.Method, allow):
		notAllowed(w, allow)
	default:
		h.answerHeader(w)
		if err := serve(w, r, name); err != nil {
			writeFailure(w, err)
		}
	}
}

// serveNamed serves one path; name is what stands behind its kind.
type serveNamed func(w http.ResponseWriter, r *http.Request, name string) error

// authMethods is what serves a path and the methods that it has.
func (h *Handler) authMethods(kind, name string) (serve serveNamed, allow string) {
	const both = "GET,PUT,DELETE"
	switch {
	case kind == "enable" && name == "":
		return h.serveEnable, both
	case kind == "users" && name == "":
		return h.serveUsers, "GET"
	case kind == "users":
		return h.serveUser, both
	case kind == "roles" && name == "":
		return h.serveRoles, "GET"
	case kind == "roles":
		return h.serveRole, both
	}
	return nil, ""
}

func isOneOf(method, allow string) bool {
	for one := range strings.SplitSeq(allow, ",") {
		if one == method {
			return true
		}
	}
	return false
}

// root makes sure that the caller may see and change users.
func (h *Handler) root(r *http.Request) (state.Caller, error) {
	c, err := h.caller(clientOf(r))
	if err != nil {
		return c, err
	}
	return c, h.machine.CheckRoot(c)
}

// changeAuth makes one raft command of a change.
func (h *Handler) changeAuth(ctx context.Context, c state.Caller, r *pb.V2AuthRequest) (state.Result, error) {
	if err := h.member.CheckV2(ctx); err != nil {
		return state.Result{}, err
	}
	return h.member.ProposeAs(ctx, c, &pb.InternalRaftRequest{V2Auth: r})
}

// readBody decodes the JSON of a request.
func readBody(r *http.Request, to any) error {
	if err := json.NewDecoder(io.LimitReader(r.Body, bodyBytesMax)).Decode(to); err != nil {
		return &messageError{http.StatusBadRequest, "Invalid JSON in request body."}
	}
	return nil
}

func (h *Handler) serveEnable(w http.ResponseWriter, r *http.Request, _ string) error {
	if r.Method == http.MethodGet {
		writeJSON(w, http.StatusOK, struct {
			Enabled bool `json:"enabled"`
		}{h.machine.AuthEnabled()})
		return nil
	}
	c, err := h.root(r)
	if err != nil {
		return err
	}
	method := pb.V2AuthRequest_ENABLE
	if r.Method == http.MethodDelete {
		method = pb.V2AuthRequest_DISABLE
	}
	if _, err := h.changeAuth(r.Context(), c, &pb.V2AuthRequest{Method: method}); err != nil {
		return err
	}
	emptyJSON(w)
	return nil
}

// emptyJSON answers with nothing but a content type.
func emptyJSON(w http.ResponseWriter) {
	setJSON(w.Header())
	w.WriteHeader(http.StatusOK)
}

func (h *Handler) serveUsers(w http.ResponseWriter, r *http.Request, _ string) error {
	if _, err := h.root(r); err != nil {
		return err
	}
	var all []jsonUserRoles
	for _, name := range h.machine.Users() {
		if u, err := h.userRoles(name, false); err == nil {
			all = append(all, u)
		}
	}
	writeJSON(w, http.StatusOK, struct {
		Users []jsonUserRoles `json:"users"`
	}{all})
	return nil
}

// userRoles is a user with what its roles allow; strict fails for a role that
// does not exist, which is left out otherwise.
func (h *Handler) userRoles(name string, strict bool) (jsonUserRoles, error) {
	u := jsonUserRoles{User: name}
	roles, err := h.machine.User(name)
	if err != nil {
		return u, &messageError{http.StatusNotFound, "auth: User " + name + " does not exist."}
	}
	for _, one := range roles {
		role, ok := h.machine.V2Role(one)
		switch {
		case ok:
			u.Roles = append(u.Roles, roleJSON(role))
		case strict:
			return u, &messageError{http.StatusNotFound, "auth: Role " + one + " does not exist."}
		}
	}
	return u, nil
}

func (h *Handler) serveUser(w http.ResponseWriter, r *http.Request, name string) error {
	c, err := h.root(r)
	if err != nil {
		return err
	}
	switch r.Method {
	case http.MethodGet:
		u, err := h.userRoles(name, true)
		if err != nil {
			return err
		}
		writeJSON(w, http.StatusOK, u)
		return nil
	case http.MethodDelete:
		if _, err := h.changeAuth(r.Context(), c, &pb.V2AuthRequest{Method: pb.V2AuthRequest_USER_DELETE, Name: name}); err != nil {
			return err
		}
		emptyJSON(w)
		return nil
	}
	return h.putUser(w, r, name, c)
}

func (h *Handler) putUser(w http.ResponseWriter, r *http.Request, name string, c state.Caller) error {
	var in jsonUser
	if err := readBody(r, &in); err != nil {
		return err
	}
	if in.User != name {
		return &messageError{http.StatusBadRequest, "User JSON name does not match the name in the URL"}
	}
	change := &pb.V2AuthRequest{Name: name, Roles: in.Roles, GrantRoles: in.Grant, RevokeRoles: in.Revoke}
	status := http.StatusOK
	_, missing := h.machine.User(name)
	switch {
	case len(in.Roles) > 0:
		change.Method = pb.V2AuthRequest_USER_CREATE
	case missing != nil && len(in.Grant)+len(in.Revoke) == 0:
		change.Method, status = pb.V2AuthRequest_USER_CREATE, http.StatusCreated
	default:
		change.Method = pb.V2AuthRequest_USER_UPDATE
	}
	if change.Method == pb.V2AuthRequest_USER_CREATE && in.Password == "" {
		return &messageError{http.StatusBadRequest, "auth: Cannot create user " + name + " with an empty password"}
	}
	if in.Password != "" {
		var err error
		if change.HashedPassword, err = h.hash(r.Context(), in.Password); err != nil {
			return &messageError{http.StatusBadRequest, err.Error()}
		}
	}
	result, err := h.changeAuth(r.Context(), c, change)
	if err != nil {
		return err
	}
	u := result.Response.(*state.V2User)
	writeJSON(w, status, jsonUserNames{u.Name, u.Roles})
	return nil
}

func (h *Handler) serveRoles(w http.ResponseWriter, r *http.Request, _ string) error {
	if _, err := h.root(r); err != nil {
		return err
	}
	var all []jsonRole
	for _, role := range h.machine.V2Roles() {
		all = append(all, roleJSON(role))
	}
	writeJSON(w, http.StatusOK, struct {
		Roles []jsonRole `json:"roles"`
	}{all})
	return nil
}

func (h *Handler) serveRole(w http.ResponseWriter, r *http.Request, name string) error {
	c, err := h.root(r)
	if err != nil {
		return err
	}
	switch r.Method {
	case http.MethodGet:
		role, ok := h.machine.V2Role(name)
		if !ok {
			return &messageError{http.StatusNotFound, "auth: Role " + name + " does not exist."}
		}
		writeJSON(w, http.StatusOK, roleJSON(role))
		return nil
	case http.MethodDelete:
		if _, err := h.changeAuth(r.Context(), c, &pb.V2AuthRequest{Method: pb.V2AuthRequest_ROLE_DELETE, Name: name}); err != nil {
			return err
		}
		emptyJSON(w)
		return nil
	}
	return h.putRole(w, r, name, c)
}

func (h *Handler) putRole(w http.ResponseWriter, r *http.Request, name string, c state.Caller) error {
	var in jsonRole
	if err := readBody(r, &in); err != nil {
		return err
	}
	given := in.Permissions.KV
	switch {
	case in.Role != name:
		return &messageError{http.StatusBadRequest, "Role JSON name does not match the name in the URL"}
	case (in.Grant != nil || in.Revoke != nil) && len(given.Read)+len(given.Write) > 0:
		return &messageError{http.StatusBadRequest, "Role JSON contains both permissions and grant/revoke"}
	}
	change := &pb.V2AuthRequest{Method: pb.V2AuthRequest_ROLE_CREATE, Name: name, Read: given.Read, Write: given.Write}
	status := http.StatusCreated
	if in.Grant != nil || in.Revoke != nil {
		change.Method, status = pb.V2AuthRequest_ROLE_UPDATE, http.StatusOK
	}
	if in.Grant != nil {
		change.Read, change.Write = in.Grant.KV.Read, in.Grant.KV.Write
	}
	if in.Revoke != nil {
		change.RevokeRead, change.RevokeWrite = in.Revoke.KV.Read, in.Revoke.KV.Write
	}
	result, err := h.changeAuth(r.Context(), c, change)
	if err != nil {
		return err
	}
	writeJSON(w, status, roleJSON(result.Response.(*state.V2Role)))
	return nil
}
