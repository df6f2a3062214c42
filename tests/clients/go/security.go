// TLS and SASL, where -ca names the certificate to trust: -identity is the client's own certificate with its key in one
// file, -sasl MECHANISM:USER:PASSWORD how it authenticates, -key-log where its secrets are written, as NSS does. With -resume true
// connections go on with the session of one before, and it says so.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"log"
	"os"
	"strings"

	"github.com/IBM/sarama"
	"github.com/xdg-go/scram"
)

var (
	authority = flag.String("ca", "", "file")
	identity  = flag.String("identity", "", "file")
	sasl      = flag.String("sasl", "", "MECHANISM:USER:PASSWORD")
	keyLog    = flag.String("key-log", "", "file")
	resume    = flag.String("resume", "false", "true or false")
)

func secure(config *sarama.Config) {
	if *authority == "" {
		return
	}
	pem, err := os.ReadFile(*authority)
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	config.Net.TLS.Enable = true
	config.Net.TLS.Config = &tls.Config{RootCAs: roots}
	if *identity != "" {
		own, err := tls.LoadX509KeyPair(*identity, *identity)
		check(err)
		config.Net.TLS.Config.Certificates = []tls.Certificate{own}
	}
	if *keyLog != "" {
		config.Net.TLS.Config.KeyLogWriter, err = os.OpenFile(*keyLog, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		check(err)
	}
	if *resume == "true" {
		config.Net.TLS.Config.ClientSessionCache = tls.NewLRUClientSessionCache(8)
		config.Net.TLS.Config.VerifyConnection = func(state tls.ConnectionState) error {
			if state.DidResume {
				log.Print("resumed")
			}
			return nil
		}
	}
	if *sasl == "" {
		return
	}
	parts := strings.SplitN(*sasl, ":", 3)
	config.Net.SASL.Enable = true
	config.Net.SASL.Mechanism = sarama.SASLMechanism(parts[0])
	config.Net.SASL.User, config.Net.SASL.Password = parts[1], parts[2]
	config.Net.SASL.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient {
		return &conversation{hash: map[string]scram.HashGeneratorFcn{
			sarama.SASLTypeSCRAMSHA256: scram.SHA256, sarama.SASLTypeSCRAMSHA512: scram.SHA512,
		}[parts[0]]}
	}
}

// conversation is SCRAM, which sarama leaves to its users.
type conversation struct {
	hash scram.HashGeneratorFcn
	*scram.ClientConversation
}

func (c *conversation) Begin(user, password, authzID string) error {
	client, err := c.hash.NewClient(user, password, authzID)
	if err == nil {
		c.ClientConversation = client.NewConversation()
	}
	return err
}
