// Consumes as a member of a share group and logs each message, until `--expect` messages have come, or none has come for
// `--idle-ms`. A class of its own, as clients before 4.0 have no share consumer.
//
// With `--acknowledge rules` it says of each message what becomes of it, by its offset: of six in turn it accepts the first three,
// releases the fourth when it comes first, rejects the fifth and renews the sixth once before it accepts it. It logs what the broker
// has answered, and ends when that many are done with. `--hold-ms` is how long it keeps the first batch before it says anything.

import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.common.TopicIdPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.serialization.StringDeserializer;

final class TruthShareConsumer {
    private final Truth truth;
    private final String group;
    private final KafkaShareConsumer<String, String> consumer;
    private final boolean hasRules;
    /** What was said of a message and not answered yet. */
    private final Map<String, Said> said = new HashMap<>();
    private long done;

    private record Said(AcknowledgeType type, int delivery) {}

    private TruthShareConsumer(
            Options options, Truth truth, String group, KafkaShareConsumer<String, String> consumer) {
        this.truth = truth;
        this.group = group;
        this.consumer = consumer;
        this.hasRules = hasRules(options);
        consumer.setAcknowledgementCommitCallback(this::answered);
    }

    private static boolean hasRules(Options options) {
        return options.get("acknowledge", "all").equals("rules");
    }

    static void run(Options options) throws Exception {
        String group = options.get("group");
        Properties properties = new Properties();
        properties.put("bootstrap.servers", options.get("bootstrap"));
        properties.put("client.id", options.get("client-id"));
        Security.configure(options, properties);
        configure(properties, group, options.get("lock-ms", null));
        properties.put("group.id", group);
        properties.put("share.acknowledgement.mode", hasRules(options) ? "explicit" : "implicit");
        long expect = options.number("expect", Long.MAX_VALUE);
        long idle = options.number("idle-ms", 60_000);
        long hold = options.number("hold-ms", 0);
        try (Truth truth = new Truth(options);
                var consumer =
                        new KafkaShareConsumer<>(properties, new StringDeserializer(), new StringDeserializer())) {
            var all = new TruthShareConsumer(options, truth, group, consumer);
            consumer.subscribe(List.of(options.get("topic").split(",")));
            long last = System.nanoTime();
            for (int turn = 0; all.done < expect && System.nanoTime() - last < idle * 1_000_000; turn++) {
                var records = consumer.poll(Duration.ofMillis(200));
                if (!records.isEmpty()) {
                    last = System.nanoTime();
                }
                if (hold > 0 && !records.isEmpty()) {
                    Thread.sleep(hold);
                    hold = 0;
                }
                for (var record : records) {
                    all.got(record);
                }
                all.commit(turn);
            }
        }
    }

    private void got(ConsumerRecord<String, String> record) {
        truth.message("received", group, record.topic(), record.partition(), record.offset(), record.timestamp(),
                record.key(), record.serializedValueSize(), record.headers());
        if (!hasRules) {
            done++;
            return;
        }
        String place = place(record.topic(), record.partition(), record.offset());
        int delivery = record.deliveryCount().orElse((short) 1);
        Said before = said.get(place);
        boolean renewed = before != null && before.type() == AcknowledgeType.RENEW && before.delivery() == delivery;
        AcknowledgeType type = switch ((int) (record.offset() % 6)) {
            case 3 -> delivery == 1 ? AcknowledgeType.RELEASE : AcknowledgeType.ACCEPT;
            case 4 -> AcknowledgeType.REJECT;
            case 5 -> renewed ? AcknowledgeType.ACCEPT : AcknowledgeType.RENEW;
            default -> AcknowledgeType.ACCEPT;
        };
        consumer.acknowledge(record, type);
        said.put(place, new Said(type, delivery));
    }

    /** In turn: at once, on the way, and with the next fetch. */
    private void commit(int turn) {
        if (!hasRules || turn % 3 == 0) {
            consumer.commitSync();
        } else if (turn % 3 == 1) {
            consumer.commitAsync();
        }
    }

    private void answered(Map<TopicIdPartition, Set<Long>> offsets, Exception exception) {
        String error = exception == null ? null : Errors.forException(exception).name();
        offsets.forEach((of, each) -> each.forEach(offset -> {
            Said what = said.get(place(of.topic(), of.partition(), offset));
            if (what == null) {
                return;
            }
            String type = what.type().toString().toLowerCase(Locale.ROOT);
            truth.acknowledged(group, of.topic(), of.partition(), offset, what.delivery(), type, error);
            if (error == null && (what.type() == AcknowledgeType.ACCEPT || what.type() == AcknowledgeType.REJECT)) {
                done++;
            }
        }));
    }

    private static String place(String topic, int partition, long offset) {
        return topic + " " + partition + " " + offset;
    }

    /** Where a share group begins, and how long a member may hold a message, is the group's configuration, not the consumer's. */
    private static void configure(Properties properties, String group, String lockMs) throws Exception {
        var settings = new HashMap<String, String>();
        settings.put("share.auto.offset.reset", "earliest");
        if (lockMs != null) {
            settings.put("share.record.lock.duration.ms", lockMs);
        }
        List<AlterConfigOp> set = settings.entrySet().stream()
                .map(one -> new AlterConfigOp(new ConfigEntry(one.getKey(), one.getValue()), AlterConfigOp.OpType.SET))
                .toList();
        try (Admin admin = Admin.create(properties)) {
            admin.incrementalAlterConfigs(Map.of(new ConfigResource(ConfigResource.Type.GROUP, group), set)).all().get();
        }
    }
}
