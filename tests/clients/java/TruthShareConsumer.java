// Consumes as a member of a share group and logs each message, until `--expect` messages have come. A class of its own, as
// clients before 4.0 have no share consumer.

import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.StringDeserializer;

final class TruthShareConsumer {
    private TruthShareConsumer() {}

    static void run(Options options) throws Exception {
        String group = options.get("group");
        Properties properties = new Properties();
        properties.put("bootstrap.servers", options.get("bootstrap"));
        properties.put("client.id", options.get("client-id"));
        fromTheBeginning(properties, group);
        properties.put("group.id", group);
        long expect = options.number("expect", Long.MAX_VALUE);
        try (Truth truth = new Truth(options);
                var consumer =
                        new KafkaShareConsumer<>(properties, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of(options.get("topic").split(",")));
            for (long seen = 0; seen < expect; ) {
                for (var record : consumer.poll(Duration.ofMillis(200))) {
                    truth.message("received", group, record.topic(), record.partition(), record.offset(),
                            record.timestamp(), record.key(), record.serializedValueSize(), record.headers());
                    seen++;
                }
                consumer.commitSync();
            }
        }
    }

    /** Where a share group begins is the group's configuration, not the consumer's. */
    private static void fromTheBeginning(Properties properties, String group) throws Exception {
        try (Admin admin = Admin.create(properties)) {
            var set = new AlterConfigOp(
                    new ConfigEntry("share.auto.offset.reset", "earliest"), AlterConfigOp.OpType.SET);
            admin.incrementalAlterConfigs(Map.of(new ConfigResource(ConfigResource.Type.GROUP, group), List.of(set)))
                    .all()
                    .get();
        }
    }
}
