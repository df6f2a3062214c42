// TLS and SASL, where `--ca FILE` names the certificate to trust: `--identity FILE` is the client's own certificate with its key,
// `--sasl MECHANISM:USER:PASSWORD` how it authenticates.

import java.util.Properties;

final class Security {
    private Security() {}

    static void configure(Options options, Properties properties) {
        String authority = options.get("ca", "");
        if (authority.isEmpty()) {
            return;
        }
        properties.put("security.protocol", "SSL");
        properties.put("ssl.truststore.type", "PEM");
        properties.put("ssl.truststore.location", authority);
        String identity = options.get("identity", "");
        if (!identity.isEmpty()) {
            properties.put("ssl.keystore.type", "PEM");
            properties.put("ssl.keystore.location", identity);
        }
        String sasl = options.get("sasl", "");
        if (!sasl.isEmpty()) {
            String[] parts = sasl.split(":", 3);
            String module = parts[0].equals("PLAIN") ? "plain.PlainLoginModule" : "scram.ScramLoginModule";
            properties.put("security.protocol", "SASL_SSL");
            properties.put("sasl.mechanism", parts[0]);
            properties.put("sasl.jaas.config", "org.apache.kafka.common.security." + module
                    + " required username=\"" + parts[1] + "\" password=\"" + parts[2] + "\";");
        }
    }
}
