// A proxy that ends TLS, and resumes sessions, as Kafka's own brokers do not: sarama proxy -listen HOST:PORT -identity FILE
// -bootstrap HOST:PORT.
package main

import (
	"crypto/tls"
	"flag"
	"io"
	"log"
	"net"
)

var listen = flag.String("listen", "", "host:port of a proxy")

func proxy() {
	own, err := tls.LoadX509KeyPair(*identity, *identity)
	check(err)
	listener, err := tls.Listen("tcp", *listen, &tls.Config{Certificates: []tls.Certificate{own}})
	check(err)
	log.Print("listening")
	for {
		client, err := listener.Accept()
		check(err)
		go func() {
			broker, err := net.Dial("tcp", *bootstrap)
			check(err)
			go func() {
				_, _ = io.Copy(broker, client)
				_ = broker.Close()
			}()
			_, _ = io.Copy(client, broker)
			_ = client.Close()
		}()
	}
}
