// Consumes from the beginning as a member of a group and logs each message, until `--expect` messages have come, none has
// come for `--idle-ms`, or SIGTERM. `--stay-ms` is how long it stays connected then. `--group-protocol` is `classic`,
// `consumer` (KIP-848) or `share` (KIP-932).

import java.time.Duration;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.serialization.StringDeserializer;

public final class TruthConsumer {
    private TruthConsumer() {}

    public static void main(String[] arguments) throws Exception {
        Options options = new Options(arguments);
        if (options.get("group-protocol", "classic").equals("share")) {
            TruthShareConsumer.run(options);
            return;
        }
        String group = options.get("group");
        Properties properties = new Properties();
        properties.put("bootstrap.servers", options.get("bootstrap"));
        properties.put("client.id", options.get("client-id"));
        Security.configure(options, properties);
        properties.put("group.id", group);
        properties.put("auto.offset.reset", "earliest");
        properties.put("metadata.max.age.ms", options.get("metadata-max-age-ms", "300000"));
        properties.put("group.protocol", options.get("group-protocol", "classic"));
        properties.put("isolation.level", options.get("isolation-level", "read_uncommitted"));
        long expect = options.number("expect", Long.MAX_VALUE);
        long idle = options.number("idle-ms", 60_000);
        try (Truth truth = new Truth(options);
                var consumer = new KafkaConsumer<>(properties, new StringDeserializer(), new StringDeserializer())) {
            Thread main = Thread.currentThread();
            Runtime.getRuntime().addShutdownHook(new Thread(() -> {
                consumer.wakeup();
                try {
                    main.join(5_000);
                } catch (InterruptedException ended) {
                    Thread.currentThread().interrupt();
                }
            }));
            consumer.subscribe(List.of(options.get("topic").split(",")));
            long seen = 0;
            long last = System.nanoTime();
            while (seen < expect && System.nanoTime() - last < idle * 1_000_000) {
                var records = consumer.poll(Duration.ofMillis(200));
                for (var record : records) {
                    truth.message("received", group, record.topic(), record.partition(), record.offset(),
                            record.timestamp(), record.key(), record.serializedValueSize(), record.headers());
                    seen++;
                    last = System.nanoTime();
                }
                if (!records.isEmpty()) {
                    truth.flush();
                    consumer.commitSync();
                }
            }
            Thread.sleep(options.number("stay-ms", 0));
        } catch (WakeupException stopped) {
            // SIGTERM: the way to end before all has come
        }
    }
}
