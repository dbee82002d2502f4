// MQTT.js, driven by one JSON command per line; what happens goes out as one JSON event per line.
"use strict";

const readline = require("node:readline");
const mqtt = require("mqtt");

let client;

function tell(event, values = {}) {
  process.stdout.write(JSON.stringify({ event, ...values }) + "\n");
}

function failed(error) {
  tell("failed", { message: String(error) });
}

const commands = {
  connect({ url, options }) {
    client = mqtt.connect(url, options);
    client.on("connect", (connack) => tell("connected", { sessionPresent: connack.sessionPresent }));
    client.on("message", (topic, payload, packet) =>
      tell("message", { topic, payload: payload.toString(), qos: packet.qos, retain: packet.retain }),
    );
    client.on("disconnect", (packet) => tell("disconnected", { reasonCode: packet.reasonCode }));
    client.on("close", () => tell("closed"));
    client.on("error", failed);
  },
  subscribe({ filter, qos }) {
    client.subscribe(filter, { qos }, (error) => (error ? failed(error) : tell("subscribed")));
  },
  publish({ topic, payload, qos, retain }) {
    client.publish(topic, payload, { qos, retain }, (error) =>
      error ? tell("refused", { payload, message: String(error) }) : tell("published", { payload }),
    );
  },
  leave() {
    client.end(false, {}, () => process.exit(0));
  },
};

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const command = JSON.parse(line);
  commands[command.do](command);
});
