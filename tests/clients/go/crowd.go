// A crowd: many producers and consumers in one process, each with connections of its own, until SIGTERM. Producer and
// consumer number i are on partition i, modulo their number; every second producer writes a traceparent. Each message is
// sent alone, and the times before and after are logged.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/IBM/sarama"
)

func crowd(config *sarama.Config, truth *truth) {
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Return.Successes = true
	config.Producer.Partitioner = sarama.NewManualPartitioner
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	// consumers first, so that they get all
	enough := make(chan struct{})
	var reading, writing sync.WaitGroup
	for i := range *consumers {
		one := *config
		one.ClientID = fmt.Sprintf("%s-in-%d", *clientID, i)
		consumer, err := sarama.NewConsumer(strings.Split(*bootstrap, ","), &one)
		check(err)
		claim, err := consumer.ConsumePartition(*topic, int32(i%*partitions), sarama.OffsetNewest)
		check(err)
		reading.Go(func() { read(one.ClientID, claim, truth, enough) })
	}
	ended := make(chan struct{})
	for i := range *producers {
		one := *config
		one.ClientID = fmt.Sprintf("%s-out-%d", *clientID, i)
		producer, err := sarama.NewSyncProducer(strings.Split(*bootstrap, ","), &one)
		check(err)
		// not all at once
		begin := time.Duration(i) * time.Duration(*interval) * time.Millisecond / time.Duration(*producers)
		writing.Go(func() {
			time.Sleep(begin)
			write(one.ClientID, i, producer, truth, ended)
		})
	}
	<-stop
	close(ended)
	writing.Wait()
	// what was sent last is still to be delivered, to each consumer of its partition
	for deadline := time.Now().Add(time.Minute); delivered.Load() < due.Load() && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	close(enough)
	reading.Wait()
}

// Deliveries of what was acknowledged that have come, and that are to come in all.
var delivered, due atomic.Int64

// How many consumers a partition has.
func readers(partition int) (count int64) {
	for i := range *consumers {
		if i%*partitions == partition {
			count++
		}
	}
	return count
}

func write(client string, number int, producer sarama.SyncProducer, truth *truth, ended <-chan struct{}) {
	tick := time.NewTicker(time.Duration(*interval) * time.Millisecond)
	value := strings.Repeat("item-0 ", *payload/7+1)[:*payload]
	for i := 0; ; i++ {
		select {
		case <-ended:
			return
		case <-tick.C:
		}
		key := fmt.Sprintf("%s-%d", client, i)
		message := &sarama.ProducerMessage{
			Topic: *topic, Partition: int32(number % *partitions),
			Key: sarama.StringEncoder(key), Value: sarama.StringEncoder(value), Timestamp: time.Now(),
		}
		if number%2 == 1 {
			message.Headers = []sarama.RecordHeader{
				header("traceparent", fmt.Sprintf("00-%s-%s-01", random(16), random(8))),
			}
		}
		one := line{Event: "sent", ClientID: client, Topic: *topic, Headers: [][2]any{}}
		one.StartUs = time.Now().UnixMicro()
		partition, offset, err := producer.SendMessage(message)
		one.EndUs = time.Now().UnixMicro()
		if err != nil {
			told := err.Error()
			one.Event, one.Error = "error", &told
		} else {
			due.Add(readers(number % *partitions))
		}
		at := message.Timestamp.UnixMilli()
		one.Partition, one.Offset, one.Timestamp, one.Key, one.ValueLen = partition, offset, &at, &key, payload
		for i := range message.Headers {
			one.Headers = append(one.Headers, pairs([]*sarama.RecordHeader{&message.Headers[i]})...)
		}
		truth.write(one)
	}
}

func read(client string, claim sarama.PartitionConsumer, truth *truth, enough <-chan struct{}) {
	for {
		select {
		case <-enough:
			return
		case got := <-claim.Messages():
			now, at := time.Now().UnixMicro(), got.Timestamp.UnixMilli()
			delivered.Add(1)
			truth.write(line{
				Event: "received", ClientID: client, Topic: got.Topic, Partition: got.Partition, Offset: got.Offset,
				Timestamp: &at, Key: text(got.Key), ValueLen: length(got.Value), Headers: pairs(got.Headers),
				StartUs: now, EndUs: now,
			})
		}
	}
}
