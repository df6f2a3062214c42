// Produces messages and logs each as the broker acknowledged it, with the headers that were really sent. Under the
// OpenTelemetry Java agent those are the agent's too, as it adds them to the record inside send().
//
// With `--edges true`, of four messages in turn one has no key, one empty key and value, one no value. With
// `--transactional-id`, `--transaction` messages at a time are a transaction; every second one is aborted. With `--cells` it
// does so for one topic after the other. With `--messages FILE` it sends what stands there instead, a line each: topic, key
// (none where it is empty) and value, with tabs between; an empty line is a pause. SIGTERM ends it early: what was
// sent till then is logged. `--set NAME=VALUE,…` gives the library settings. `--stay-ms` is how long it stays connected when all is sent.

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Properties;
import java.util.Random;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

public final class TruthProducer {
    private final Options options;
    private final Truth truth;
    private final Random random = new Random();
    private final AtomicBoolean stopped = new AtomicBoolean();
    private volatile boolean failed;

    private TruthProducer(Options options, Truth truth) {
        this.options = options;
        this.truth = truth;
    }

    public static void main(String[] arguments) throws Exception {
        Options options = new Options(arguments);
        boolean failed;
        try (Truth truth = new Truth(options)) {
            TruthProducer all = new TruthProducer(options, truth);
            all.stopOnSignal(Thread.currentThread());
            String messages = options.get("messages", "");
            if (!messages.isEmpty()) {
                all.produce(Path.of(messages));
            } else {
                for (Cell cell : Cell.of(options)) {
                    all.produce(cell);
                }
            }
            // SIGTERM has its own way to end
            failed = all.failed && !all.stopped.get();
        }
        if (failed) {
            System.exit(1);
        }
    }

    private void stopOnSignal(Thread main) {
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            stopped.set(true);
            try {
                // what is under way takes up to delivery.timeout.ms
                main.join(100_000);
            } catch (InterruptedException ended) {
                Thread.currentThread().interrupt();
            }
        }));
    }

    private void produce(Cell cell) throws Exception {
        boolean transactional = cell.transactionalId() != null;
        long transaction = options.number("transaction", 4);
        boolean edges = options.get("edges", "false").equals("true");
        String style = options.get("header-style", "none");
        String keyPrefix = options.get("key-prefix", options.get("client-id"));
        String value = payload((int) options.number("payload", 100));
        long interval = options.number("interval-ms", 0);
        try (var producer = new KafkaProducer<>(properties(cell), new StringSerializer(), new StringSerializer())) {
            if (transactional) {
                producer.initTransactions();
            }
            for (long i = 0; i < options.number("count", 1) && !stopped.get(); i++) {
                if (transactional && i % transaction == 0) {
                    producer.beginTransaction();
                }
                long kind = edges ? i % 4 : 0;
                String key = kind == 1 ? null : kind == 2 ? "" : keyPrefix + "-" + i;
                var record = new ProducerRecord<>(cell.topic(), key, kind == 2 ? "" : kind == 3 ? null : value);
                HeaderStyle.write(style, record.headers(), random, i);
                send(producer, record);
                if (transactional && i % transaction == transaction - 1) {
                    producer.flush();
                    boolean commit = i / transaction % 2 == 0;
                    if (commit) {
                        producer.commitTransaction();
                    } else {
                        producer.abortTransaction();
                    }
                    truth.transactionEnds(commit);
                }
                if (interval > 0) {
                    Thread.sleep(interval);
                }
            }
            if (!stopped.get()) {
                Thread.sleep(options.number("stay-ms", 0));
            }
        }
    }

    private void produce(Path messages) throws Exception {
        long interval = options.number("interval-ms", 0);
        try (var producer = new KafkaProducer<>(
                properties(Cell.of(options).get(0)), new StringSerializer(), new StringSerializer())) {
            for (String line : Files.readAllLines(messages)) {
                if (stopped.get()) {
                    return;
                }
                if (line.isEmpty()) {
                    Thread.sleep(interval);
                    continue;
                }
                String[] parts = line.split("\t", 3);
                String key = parts[1].isEmpty() ? null : parts[1];
                send(producer, new ProducerRecord<>(parts[0], key, parts[2]));
            }
        }
    }

    private void send(KafkaProducer<String, String> producer, ProducerRecord<String, String> record) {
        producer.send(record, (metadata, error) -> {
            if (error != null) {
                failed = true;
                truth.error(error);
                return;
            }
            truth.message("sent", null, metadata.topic(), metadata.partition(),
                    metadata.hasOffset() ? metadata.offset() : -1, metadata.timestamp(), record.key(),
                    metadata.serializedValueSize(), record.headers());
        });
    }

    private Properties properties(Cell cell) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", options.get("bootstrap"));
        properties.put("client.id", options.get("client-id"));
        Security.configure(options, properties);
        properties.put("compression.type", cell.codec());
        properties.put("acks", cell.acks());
        properties.put("enable.idempotence", cell.idempotence());
        properties.put("linger.ms", options.get("linger-ms", "5"));
        properties.put("metadata.max.age.ms", options.get("metadata-max-age-ms", "300000"));
        if (cell.transactionalId() != null) {
            properties.put("transactional.id", cell.transactionalId());
        }
        for (String setting : options.get("set", "").split(",")) {
            if (!setting.isEmpty()) {
                String[] parts = setting.split("=", 2);
                properties.put(parts[0], parts[1]);
            }
        }
        return properties;
    }

    /** Compressible, but not all the same byte. */
    private static String payload(int length) {
        StringBuilder text = new StringBuilder();
        for (int i = 0; text.length() < length; i++) {
            text.append("item-").append(i).append(' ');
        }
        return text.substring(0, length);
    }
}
