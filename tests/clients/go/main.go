// sarama: `sarama produce|consume OPTIONS`, with the options of the other clients; `sarama crowd` is many of both,
// `sarama proxy` ends TLS before a broker.
//
// With -edges true, of four messages in turn one has no key, one empty key and value, one no value. With -instrumented true
// it is used through otelsarama.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"flag"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/IBM/sarama"
	"github.com/dnwe/otelsarama"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/trace"
)

var (
	bootstrap   = flag.String("bootstrap", "", "host:port")
	topic       = flag.String("topic", "", "topics, with commas")
	service     = flag.String("service", "", "")
	clientID    = flag.String("client-id", "", "")
	truthFile   = flag.String("truth", "", "file")
	group       = flag.String("group", "", "")
	expect      = flag.Int("expect", 1<<30, "messages")
	count       = flag.Int("count", 1, "messages")
	codec       = flag.String("codec", "none", "")
	acks        = flag.String("acks", "all", "")
	idempotence = flag.String("idempotence", "true", "true or false")
	payload     = flag.Int("payload", 100, "bytes")
	headerStyle = flag.String("header-style", "none", "none, traceparent or edges")
	edges       = flag.String("edges", "false", "true or false")
	interval    = flag.Int("interval-ms", 0, "")
	stay        = flag.Int("stay-ms", 0, "how long it stays connected when it is done")
	producers   = flag.Int("producers", 1, "of a crowd")
	consumers   = flag.Int("consumers", 1, "of a crowd")
	partitions  = flag.Int("partitions", 1, "of the crowd's topic")
	cells       = flag.String("cells", "", "of a producer: TOPIC:CODEC:MODE, with commas")
	transaction = flag.Int("transaction", 4, "messages")
	isolation   = flag.String("isolation-level", "read_uncommitted", "")
	instrument  = flag.String("instrumented", "false", "true or false")
	protocol    = flag.String("protocol", "3.6.0", "the version whose protocol is spoken")
)

func main() {
	log.SetFlags(0)
	verb := os.Args[1]
	check(flag.CommandLine.Parse(os.Args[2:]))
	version, err := sarama.ParseKafkaVersion(*protocol)
	check(err)
	config := sarama.NewConfig()
	config.Version = version
	config.ClientID = *clientID
	if !version.IsAtLeast(sarama.V0_10_0_0) {
		config.ApiVersionsRequest = false
	}
	secure(config)
	if *instrument == "true" {
		// spans of its own go nowhere: it is there for what it puts into headers
		otel.SetTracerProvider(trace.NewTracerProvider())
		otel.SetTextMapPropagator(propagation.TraceContext{})
	}
	switch verb {
	case "produce":
		produce(config, newTruth(*truthFile))
	case "consume":
		consume(config, newTruth(*truthFile))
	case "crowd":
		crowd(config, newTruth(*truthFile))
	case "proxy":
		proxy()
	default:
		log.Fatalf("unknown verb: %s", verb)
	}
}

func message(topic string, number int) *sarama.ProducerMessage {
	value := strings.Repeat("item-0 ", *payload/7+1)[:*payload]
	one := &sarama.ProducerMessage{
		Topic:     topic,
		Key:       sarama.StringEncoder(fmt.Sprintf("%s-%d", *clientID, number)),
		Value:     sarama.StringEncoder(value),
		Headers:   headers(number),
		Timestamp: time.Now(),
	}
	if *edges == "true" {
		switch number % 4 {
		case 1:
			one.Key = nil
		case 2:
			one.Key, one.Value = sarama.StringEncoder(""), sarama.StringEncoder("")
		case 3:
			one.Value = nil
		}
	}
	return one
}

func headers(number int) []sarama.RecordHeader {
	traceparent := header("traceparent", fmt.Sprintf("00-%s-%s-01", random(16), random(8)))
	switch {
	case *headerStyle == "none":
		return nil
	case *headerStyle == "traceparent":
		return []sarama.RecordHeader{traceparent}
	case *headerStyle != "edges":
		log.Fatalf("unknown header style: %s", *headerStyle)
	}
	return [][]sarama.RecordHeader{
		{header("content-type", "text/plain"), traceparent},
		{header("b3", random(16)+"-"+random(8)+"-1"), header("twice", "1"), header("twice", "2")},
		{{Key: []byte("nothing")}, header("", "empty key"), header("bytes", "\xff\x00\xfe")},
		nil,
	}[number%4]
}

func consume(config *sarama.Config, truth *truth) {
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	if *isolation == "read_committed" {
		config.Consumer.IsolationLevel = sarama.ReadCommitted
	}
	client, err := sarama.NewConsumerGroup(strings.Split(*bootstrap, ","), *group, config)
	check(err)
	enough, stop := context.WithCancel(context.Background())
	reader := &reader{truth: truth, got: make(chan struct{})}
	go func() {
		for range *expect {
			<-reader.got
		}
		stop()
	}()
	var handler sarama.ConsumerGroupHandler = reader
	if *instrument == "true" {
		handler = otelsarama.WrapConsumerGroupHandler(handler)
	}
	for enough.Err() == nil {
		check(client.Consume(enough, strings.Split(*topic, ","), handler))
	}
	time.Sleep(time.Duration(*stay) * time.Millisecond)
	check(client.Close())
}

type reader struct {
	truth *truth
	got   chan struct{}
}

func (*reader) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (*reader) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (r *reader) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case <-session.Context().Done():
			return nil
		case got, open := <-claim.Messages():
			if !open {
				return nil
			}
			one := line{Event: "received", Group: group, Topic: got.Topic, Partition: got.Partition, Offset: got.Offset}
			// before Kafka 0.10 messages have none
			if at := got.Timestamp.UnixMilli(); !got.Timestamp.IsZero() {
				one.Timestamp = &at
			}
			one.Key, one.ValueLen, one.Headers = text(got.Key), length(got.Value), pairs(got.Headers)
			r.truth.write(one)
			session.MarkMessage(got, "")
			r.got <- struct{}{}
		}
	}
}

func header(key, value string) sarama.RecordHeader {
	return sarama.RecordHeader{Key: []byte(key), Value: []byte(value)}
}

func random(bytes int) string {
	raw := make([]byte, bytes)
	_, err := rand.Read(raw)
	check(err)
	return hex.EncodeToString(raw)
}

func encoded(from sarama.Encoder) []byte {
	if from == nil {
		return nil
	}
	raw, err := from.Encode()
	check(err)
	return raw
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
