// sarama: `sarama produce|consume OPTIONS`, with the options of the other clients; `sarama crowd` is many of both.
//
// With -edges true, of four messages in turn one has no key, one empty key and value, one no value.
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
	producers   = flag.Int("producers", 1, "of a crowd")
	consumers   = flag.Int("consumers", 1, "of a crowd")
	partitions  = flag.Int("partitions", 1, "of the crowd's topic")
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
	switch verb {
	case "produce":
		produce(config, newTruth(*truthFile))
	case "consume":
		consume(config, newTruth(*truthFile))
	case "crowd":
		crowd(config, newTruth(*truthFile))
	default:
		log.Fatalf("unknown verb: %s", verb)
	}
}

func produce(config *sarama.Config, truth *truth) {
	check(config.Producer.Compression.UnmarshalText([]byte(*codec)))
	config.Producer.RequiredAcks = map[string]sarama.RequiredAcks{"all": -1, "1": 1, "0": 0}[*acks]
	config.Producer.Idempotent = *idempotence == "true" && config.Version.IsAtLeast(sarama.V0_11_0_0)
	config.Producer.Return.Successes = true
	config.Producer.Flush.Frequency = 100 * time.Millisecond
	config.Net.MaxOpenRequests = 1
	producer, err := sarama.NewAsyncProducer(strings.Split(*bootstrap, ","), config)
	check(err)
	go func() {
		for i := range *count {
			producer.Input() <- message(i)
			time.Sleep(time.Duration(*interval) * time.Millisecond)
		}
	}()
	for range *count {
		select {
		case sent := <-producer.Successes():
			at := sent.Timestamp.UnixMilli()
			one := line{Event: "sent", Topic: sent.Topic, Partition: sent.Partition, Offset: sent.Offset, Headers: [][2]any{}}
			if config.Version.IsAtLeast(sarama.V0_10_0_0) {
				one.Timestamp = &at
			}
			one.Key, one.ValueLen = text(encoded(sent.Key)), length(encoded(sent.Value))
			for i := range sent.Headers {
				one.Headers = append(one.Headers, pairs([]*sarama.RecordHeader{&sent.Headers[i]})...)
			}
			truth.write(one)
		case failed := <-producer.Errors():
			check(failed)
		}
	}
	check(producer.Close())
}

func message(number int) *sarama.ProducerMessage {
	value := strings.Repeat("item-0 ", *payload/7+1)[:*payload]
	one := &sarama.ProducerMessage{
		Topic:     *topic,
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
	for enough.Err() == nil {
		check(client.Consume(enough, strings.Split(*topic, ","), reader))
	}
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
