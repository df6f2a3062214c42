# TLS and SASL, where --ca names the certificate to trust: --identity FILE is the client's own certificate with its key, --sasl
# MECHANISM:USER:PASSWORD how it authenticates, --key-log FILE where its secrets are written, as NSS does.
import ssl


def librdkafka(given):
    """Settings of confluent-kafka, which cannot log its secrets."""
    if not given.ca:
        return {}
    settings = {"security.protocol": "ssl", "ssl.ca.location": given.ca}
    if given.identity:
        settings |= {"ssl.certificate.location": given.identity, "ssl.key.location": given.identity}
    if given.sasl:
        mechanism, user, password = given.sasl.split(":", 2)
        settings |= {
            "security.protocol": "sasl_ssl", "sasl.mechanism": mechanism, "sasl.username": user, "sasl.password": password,
        }  # fmt: skip
    return settings


def python(given):
    """Arguments of kafka-python and of aiokafka."""
    if not given.ca:
        return {}
    context = ssl.create_default_context(cafile=given.ca)
    if given.identity:
        context.load_cert_chain(given.identity)
    if given.key_log:
        context.keylog_filename = given.key_log
    arguments = {"security_protocol": "SSL", "ssl_context": context}
    if given.sasl:
        mechanism, user, password = given.sasl.split(":", 2)
        arguments |= {
            "security_protocol": "SASL_SSL", "sasl_mechanism": mechanism, "sasl_plain_username": user,
            "sasl_plain_password": password,
        }  # fmt: skip
    return arguments
