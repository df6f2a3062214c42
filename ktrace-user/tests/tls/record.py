# Records the captures of this directory, with the secrets inside, and what tshark reads in each. As root, beside nothing that
# speaks Kafka:
#
#   record.py --kafka JARS --java-clients CLASSES --sarama PROGRAM
#
# under a Python that has kafka-python. JARS are those of a broker's release; CLASSES and PROGRAM are built from tests/clients
# (`cargo xtask setup --for test` leaves all of it in the cache). Needs openssl, java, tcpdump, editcap and tshark.
import argparse
import contextlib
import gzip
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
JVM = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
PASSWORD = "Pa55-of-tls-3b9e61f7"

# A listener's own properties. A broker of Java does not encrypt first (RFC 7366), and Java logs no secrets: there OpenSSL stands
# in front of a plaintext listener, and logs.
TLS = {
    "SASL": {
        "sasl.enabled.mechanisms": "PLAIN",
        "plain.sasl.jaas.config": "org.apache.kafka.common.security.plain.PlainLoginModule required "
        f'user_alice="{PASSWORD}";',
    },
    "AES128": {"ssl.enabled.protocols": "TLSv1.3", "ssl.cipher.suites": "TLS_AES_128_GCM_SHA256"},
    "CHACHA13": {"ssl.enabled.protocols": "TLSv1.3", "ssl.cipher.suites": "TLS_CHACHA20_POLY1305_SHA256"},
    "MUTUAL12": {"ssl.enabled.protocols": "TLSv1.2", "ssl.client.auth": "required"},
    "CHACHA12": {
        "ssl.enabled.protocols": "TLSv1.2",
        "ssl.cipher.suites": "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    },
    "CBC128": {"ssl.enabled.protocols": "TLSv1.2", "ssl.cipher.suites": "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"},
    "CBC256": {"ssl.enabled.protocols": "TLSv1.2", "ssl.cipher.suites": "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384"},
}
# The broker's listener behind each.
IN_FRONT = {"FRONT13": "BEHIND13", "FRONT12": "BEHIND12", "FRONTCBC": "BEHINDCBC"}
BROKERS = ["PLAINTEXT", *TLS, *IN_FRONT.values()]

# Name, client, listener, arguments of kafka-python, messages, bytes of each, whether they are fetched, too.
CASES = [
    ("kafka-python-tls13", "kafka-python", "SASL", ["--sasl"], 8, 700, True),
    ("kafka-python-tls13-chacha20", "kafka-python", "CHACHA13", [], 3, 40, False),
    ("kafka-python-tls12", "kafka-python", "MUTUAL12", ["--identity"], 3, 40, False),
    ("kafka-python-tls12-chacha20", "kafka-python", "CHACHA12", [], 3, 40, False),
    ("kafka-python-tls12-cbc-sha1", "kafka-python", "CBC128", [], 3, 40, False),
    ("kafka-python-tls12-cbc-sha384", "kafka-python", "CBC256", [], 3, 40, False),
    ("kafka-python-tls12-cbc-encrypt-then-mac", "kafka-python", "FRONTCBC", [], 3, 40, False),
    ("sarama-tls13", "sarama", "AES128", [], 3, 40, False),
    ("sarama-tls12", "sarama", "MUTUAL12", ["--identity"], 3, 40, False),
    ("java-tls13", "java", "FRONT13", [], 3, 40, False),
    ("java-tls12", "java", "FRONT12", [], 3, 40, False),
]


def main():
    parser = argparse.ArgumentParser()
    for name in ["--kafka", "--java-clients", "--sarama"]:
        parser.add_argument(name, required=True)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        os.chdir(scratch)
        certificates()
        ports = free_ports([*BROKERS, "CONTROLLER", *IN_FRONT])
        broker(given.kafka, ports, stack)
        in_front(ports)
        topics([name for name, *_ in CASES], ports["PLAINTEXT"])
        for case in CASES:
            record(case, ports[case[2]], given, stack)


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def certificates():
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    run("openssl", "req", "-x509", *key, "-days", "2", "-subj", "/CN=tests", "-addext", "keyUsage=critical,keyCertSign",
        "-keyout", "ca.key", "-out", "ca.pem")  # fmt: skip
    for name in ["broker", "client"]:
        run("openssl", "req", *key, "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1",
            "-keyout", f"{name}.key", "-out", f"{name}.csr")  # fmt: skip
        run("openssl", "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2",
            "-copy_extensions", "copy", "-out", f"{name}.crt")  # fmt: skip
        write(f"{name}.pem", read(f"{name}.key") + read(f"{name}.crt"))
    run("openssl", "pkcs12", "-export", "-in", "broker.pem", "-certfile", "ca.pem", "-passout", "pass:secret",
        "-out", "broker.p12")  # fmt: skip


def free_ports(names):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    ports = {name: one.getsockname()[1] for name, one in zip(names, sockets)}
    for one in sockets:
        one.close()
    return ports


def broker(jars, ports, stack):
    def protocol(name):
        return "SASL_SSL" if name == "SASL" else "SSL" if name in TLS else "PLAINTEXT"

    seen_as = {behind: front for front, behind in IN_FRONT.items()}
    listeners = [f"{name}://127.0.0.1:{ports[name]}" for name in [*BROKERS, "CONTROLLER"]]
    advertised = [f"{name}://127.0.0.1:{ports[seen_as.get(name, name)]}" for name in BROKERS]
    protocols = [f"{name}:{protocol(name)}" for name in [*BROKERS, "CONTROLLER"]]
    lines = [
        "process.roles=broker,controller",
        "node.id=1",
        f"controller.quorum.voters=1@127.0.0.1:{ports['CONTROLLER']}",
        "controller.listener.names=CONTROLLER",
        f"listeners={','.join(listeners)}",
        f"advertised.listeners={','.join(advertised)}",
        f"listener.security.protocol.map={','.join(protocols)}",
        f"log.dirs={os.getcwd()}/data",
        "offsets.topic.replication.factor=1",
        "ssl.keystore.type=PKCS12",
        f"ssl.keystore.location={os.getcwd()}/broker.p12",
        "ssl.keystore.password=secret",
        "ssl.key.password=secret",
        "ssl.truststore.type=PEM",
        f"ssl.truststore.location={os.getcwd()}/ca.pem",
    ]
    for name, properties in TLS.items():
        lines += [f"listener.name.{name.lower()}.{key}={value}" for key, value in properties.items()]
    write("server.properties", "\n".join(lines))
    # The broker changes its keys, and asks the client to change its own, as often as can be.
    write("java.security", "jdk.tls.keyLimits=AES/GCM/NoPadding KeyUpdate 2^12, ChaCha20-Poly1305 KeyUpdate 2^37\n")
    java = ["java", *JVM, "-Djava.security.properties=java.security", "-cp", f"{jars}/*"]
    run(*java, "kafka.tools.StorageTool", "format", "-t", "a3RyYWNlLXRlc3RzLTAwMQ", "-c", "server.properties")
    log = open("broker.log", "w")
    process = subprocess.Popen([*java, "kafka.Kafka", "server.properties"], stdout=log, stderr=log)
    stack.callback(process.wait)
    stack.callback(process.kill)
    while "Kafka Server started" not in read("broker.log"):
        if process.poll() is not None:
            sys.exit(read("broker.log"))
        time.sleep(0.1)


def in_front(ports):
    for front, behind in IN_FRONT.items():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain("broker.pem")
        context.keylog_filename = f"{front}.keys"
        if front != "FRONT13":
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        if front == "FRONTCBC":
            context.set_ciphers("ECDHE-ECDSA-AES128-SHA256")
        server = socket.create_server(("127.0.0.1", ports[front]))
        threading.Thread(target=accept, args=(server, context, ports[behind]), daemon=True).start()


def accept(server, context, behind):
    while True:
        client, _ = server.accept()
        threading.Thread(target=forward, args=(client, context, behind), daemon=True).start()


def forward(client, context, behind):
    with contextlib.suppress(OSError), context.wrap_socket(client, server_side=True) as client:
        with socket.create_connection(("127.0.0.1", behind)) as broker:
            while True:
                # what OpenSSL holds is not seen by select
                ready = [client] if client.pending() else select.select([client, broker], [], [])[0]
                for one, other in [(client, broker), (broker, client)]:
                    if one in ready:
                        data = one.recv(16384)
                        if not data:
                            return
                        other.sendall(data)


def topics(names, port):
    from kafka.admin import KafkaAdminClient, NewTopic

    admin = KafkaAdminClient(bootstrap_servers=f"127.0.0.1:{port}")
    admin.create_topics([NewTopic(name, 1, 1) for name in names])
    admin.close()


def record(case, port, given, stack):
    name, _, listener, *_ = case
    keys = f"{listener if listener in IN_FRONT else name}.keys"
    tcpdump = subprocess.Popen(
        ["tcpdump", "-i", "lo", "-U", "--immediate-mode", "-s", "0", "--time-stamp-precision=nano", "-Z", "root",
         "-w", f"{name}.pcap", "tcp", "port", str(port)],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    stack.callback(tcpdump.kill)
    while "listening on" not in tcpdump.stderr.readline():
        pass
    run(*client(case, port, keys, given))
    # for the last segments of what was closed
    time.sleep(1)
    tcpdump.send_signal(signal.SIGINT)
    tcpdump.wait(10)
    run("editcap", "-F", "pcapng", "--inject-secrets", f"tls,{keys}", f"{name}.pcap", f"{name}.pcapng")
    with open(f"{name}.pcapng", "rb") as capture, open(f"{HERE}/{name}.pcapng.gz", "wb") as file:
        with gzip.GzipFile("", "wb", 9, file, 0) as out:
            out.write(capture.read())
    write(f"{HERE}/{name}.tsv", listed(f"{name}.pcapng", port))
    print(name, os.path.getsize(f"{HERE}/{name}.pcapng.gz"))


def client(case, port, keys, given):
    name, library, _, told, count, payload, fetches = case
    options = {
        "--bootstrap": f"127.0.0.1:{port}", "--topic": name, "--ca": "ca.pem", "--count": count, "--payload": payload,
    }  # fmt: skip
    if "--identity" in told:
        options["--identity"] = "client.pem"
    if library != "java":
        options["--key-log"] = keys
    if library == "kafka-python":
        options |= {"--fetches": fetches} | ({"--sasl": f"PLAIN:alice:{PASSWORD}"} if "--sasl" in told else {})
        command = [sys.executable, os.path.abspath(__file__), "client"]
    else:
        options |= {
            "--service": name, "--client-id": name, "--truth": f"{name}.truth", "--codec": "none", "--acks": "all",
            "--idempotence": "false", "--header-style": "traceparent",
        }  # fmt: skip
        classes = f"{given.java_clients}:{given.kafka}/*"
        command = {
            "sarama": [given.sarama, "produce"],
            "java": ["java", *JVM, "-cp", classes, "TruthProducer", "--client", "java"],
        }[library]
    return command + [str(word) for option in options.items() for word in option]


# A request for each message, and without a group.
def kafka_python(arguments):
    from kafka import KafkaConsumer, KafkaProducer, TopicPartition

    given = dict(zip(arguments[::2], arguments[1::2]))
    topic, count = given["--topic"], int(given["--count"])
    context = ssl.create_default_context(cafile=given["--ca"])
    context.keylog_filename = given["--key-log"]
    if "--identity" in given:
        context.load_cert_chain(given["--identity"])
    how = {"bootstrap_servers": given["--bootstrap"], "security_protocol": "SSL", "ssl_context": context}
    if "--sasl" in given:
        mechanism, user, password = given["--sasl"].split(":")
        how |= {"security_protocol": "SASL_SSL", "sasl_mechanism": mechanism}
        how |= {"sasl_plain_username": user, "sasl_plain_password": password}
    producer = KafkaProducer(client_id=f"{topic}-out", enable_idempotence=False, acks="all", **how)
    for number in range(1, count + 1):
        value = f"message {number} ".encode() * 100
        trace = f"00-{number:032x}-{number:016x}-01".encode()
        headers = [("traceparent", trace)]
        producer.send(topic, value[: int(given["--payload"])], f"key-{number}".encode(), headers).get(20)
    producer.close()
    if given["--fetches"] == "True":
        consumer = KafkaConsumer(client_id=f"{topic}-in", enable_auto_commit=False, **how)
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek_to_beginning(partition)
        while count > 0:
            count -= sum(len(batch) for batch in consumer.poll(1000).values())
        consumer.close()


# Each Kafka message: the TCP stream, its sender, the API of a request, correlation id, size. In the order of the capture.
def listed(capture, port):
    fields = ["tcp.stream", "tcp.dstport", "kafka.request_key", "kafka.correlation_id", "kafka.len"]
    command = ["tshark", "-r", capture, "-d", f"tls.port=={port},kafka", "-Y", "kafka", "-T", "fields"]
    command += [word for field in fields for word in ("-e", field)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = [f"# port {port}"]
    for line in said.splitlines():
        stream, to, apis, ids, sizes = line.split("\t")
        requests = to == str(port)
        ids, sizes, apis = ids.split(","), sizes.split(","), apis.split(",")
        # a frame may have several messages
        assert len(ids) == len(sizes) and (not requests or len(apis) == len(ids)), line
        for at, (one, size) in enumerate(zip(ids, sizes)):
            lines.append("\t".join([stream, ">" if requests else "<", apis[at] if requests else "", one, size]))
    return "\n".join(lines) + "\n"


def read(path):
    with open(path) as file:
        return file.read()


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


if sys.argv[1:2] == ["client"]:
    kafka_python(sys.argv[2:])
else:
    main()
