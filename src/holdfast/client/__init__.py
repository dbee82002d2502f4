"""The MQTT client, whose outbox and inbox outlive the process."""
