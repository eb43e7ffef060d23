package logs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"gopkg.in/natefinch/lumberjack.v2"
)

// Rotation is when a file is set aside and how long those are kept.
type Rotation struct {
	MaxSize    int  `json:"maxsize"`    // megabytes at which a file is set aside; 0 is 100
	MaxAge     int  `json:"maxage"`     // days that files are kept; 0 is for ever
	MaxBackups int  `json:"maxbackups"` // files that are kept; 0 is all
	LocalTime  bool `json:"localtime"`  // in the files' names; UTC otherwise
	Compress   bool `json:"compress"`   // files set aside, by gzip
}

// ParseRotation reads a rotation as etcd's --log-rotation-config-json has it.
func ParseRotation(text string) (*Rotation, error) {
	r := &Rotation{}
	d := json.NewDecoder(bytes.NewBufferString(text))
	d.DisallowUnknownFields()
	err := d.Decode(r)
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("improperly formatted log rotation config: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("invalid log rotation config: %w", err)
	}
	if d.More() {
		return nil, errors.New("improperly formatted log rotation config: something follows the object")
	}
	if r.MaxSize < 0 || r.MaxAge < 0 || r.MaxBackups < 0 {
		return nil, fmt.Errorf("invalid log rotation config: maxsize %d, maxage %d and maxbackups %d must not be negative", r.MaxSize, r.MaxAge, r.MaxBackups)
	}
	return r, nil
}

func (r *Rotation) writer(name string) io.WriteCloser {
	return &lumberjack.Logger{Filename: name, MaxSize: r.MaxSize, MaxAge: r.MaxAge, MaxBackups: r.MaxBackups, LocalTime: r.LocalTime, Compress: r.Compress}
}
