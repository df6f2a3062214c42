// The producer: one topic, or with -cells one after the other. The mode of a cell is plain (acks=1), idempotent or
// transactional, with the topic as transactional id and -transaction messages in each; every second one is aborted.
package main

import (
	"log"
	"strings"
	"time"

	"github.com/IBM/sarama"
	"github.com/dnwe/otelsarama"
)

func produce(config *sarama.Config, truth *truth) {
	config.Producer.Return.Successes = true
	config.Producer.Flush.Frequency = 100 * time.Millisecond
	config.Net.MaxOpenRequests = 1
	if *cells == "" {
		config.Producer.RequiredAcks = map[string]sarama.RequiredAcks{"all": -1, "1": 1, "0": 0}[*acks]
		config.Producer.Idempotent = *idempotence == "true" && config.Version.IsAtLeast(sarama.V0_11_0_0)
		produceTo(*topic, *codec, config, truth)
		return
	}
	for cell := range strings.SplitSeq(*cells, ",") {
		parts := strings.Split(cell, ":")
		one := *config
		one.Producer.RequiredAcks = sarama.WaitForAll
		switch parts[2] {
		case "plain":
			one.Producer.RequiredAcks = sarama.WaitForLocal
		case "idempotent":
			one.Producer.Idempotent = true
		case "transactional":
			one.Producer.Idempotent = true
			one.Producer.Transaction.ID = parts[0]
		default:
			log.Fatalf("unknown mode: %s", parts[2])
		}
		produceTo(parts[0], parts[1], &one, truth)
	}
}

func produceTo(topic, codec string, config *sarama.Config, truth *truth) {
	check(config.Producer.Compression.UnmarshalText([]byte(codec)))
	producer, err := sarama.NewAsyncProducer(strings.Split(*bootstrap, ","), config)
	check(err)
	if *instrument == "true" {
		producer = otelsarama.WrapAsyncProducer(config, producer)
	}
	if config.Producer.Transaction.ID == "" {
		send(producer, topic, 0, *count, config, truth)
	}
	for from := 0; config.Producer.Transaction.ID != "" && from < *count; from += *transaction {
		check(producer.BeginTxn())
		send(producer, topic, from, min(from+*transaction, *count), config, truth)
		if from / *transaction % 2 == 0 {
			check(producer.CommitTxn())
			truth.write(line{Event: "committed"})
		} else {
			check(producer.AbortTxn())
			truth.write(line{Event: "aborted"})
		}
	}
	time.Sleep(time.Duration(*stay) * time.Millisecond)
	check(producer.Close())
}

// send returns when all from one number to before another are acknowledged.
func send(producer sarama.AsyncProducer, topic string, from, to int, config *sarama.Config, truth *truth) {
	go func() {
		for i := from; i < to; i++ {
			producer.Input() <- message(topic, i)
			time.Sleep(time.Duration(*interval) * time.Millisecond)
		}
	}()
	for range to - from {
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
}
