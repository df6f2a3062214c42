// What a client knows about its messages, one JSON object a line; the same lines as those of the other clients.
package main

import (
	"encoding/json"
	"os"
	"sync"
	"unicode/utf8"

	"github.com/IBM/sarama"
)

type line struct {
	Event     string   `json:"event"`
	Client    string   `json:"client"`
	Service   string   `json:"service"`
	ClientID  string   `json:"client_id"`
	Group     *string  `json:"group"`
	Topic     string   `json:"topic"`
	Partition int32    `json:"partition"`
	Offset    int64    `json:"offset"`
	Timestamp *int64   `json:"timestamp"`
	Key       *string  `json:"key"`
	ValueLen  *int     `json:"value_len"`
	Headers   [][2]any `json:"headers"`
	// of a crowd: when it was begun and when it was done, in microseconds since 1970
	StartUs int64   `json:"start_us,omitempty"`
	EndUs   int64   `json:"end_us,omitempty"`
	Error   *string `json:"error,omitempty"`
}

type truth struct {
	lock    sync.Mutex
	encoder *json.Encoder
}

func newTruth(file string) *truth {
	created, err := os.Create(file)
	check(err)
	return &truth{encoder: json.NewEncoder(created)}
}

func (t *truth) write(one line) {
	t.lock.Lock()
	defer t.lock.Unlock()
	one.Client, one.Service = "sarama", *service
	if one.ClientID == "" {
		one.ClientID = *clientID
	}
	if one.Headers == nil {
		one.Headers = [][2]any{}
	}
	check(t.encoder.Encode(one))
}

// headerValue is text, or {"base64": …} where it is none, or null.
func headerValue(raw []byte) any {
	if raw == nil {
		return nil
	}
	if utf8.Valid(raw) {
		return string(raw)
	}
	return map[string][]byte{"base64": raw}
}

func pairs(headers []*sarama.RecordHeader) [][2]any {
	told := [][2]any{}
	for _, header := range headers {
		told = append(told, [2]any{string(header.Key), headerValue(header.Value)})
	}
	return told
}

// text is nil for nil, so null in JSON.
func text(raw []byte) *string {
	if raw == nil {
		return nil
	}
	plain := string(raw)
	return &plain
}

func length(raw []byte) *int {
	if raw == nil {
		return nil
	}
	count := len(raw)
	return &count
}
