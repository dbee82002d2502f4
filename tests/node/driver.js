// MQTT.js, driven by one JSON command per line; what happens goes out as one JSON event per line.
// In Node these are standard input and output, in a page they are requests to who served it.
"use strict";

const isPage = typeof window !== "undefined";
const mqtt = isPage ? window.mqtt : require("mqtt");

let client;
let told = Promise.resolve();

function tell(event, values = {}) {
  const line = JSON.stringify({ event, ...values });
  if (isPage) {
    told = told.then(() => fetch("/event", { method: "POST", body: line })); // one after the other
  } else {
    process.stdout.write(line + "\n");
  }
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
    client.end(false, {}, () => tell("left"));
    // Node ends by itself when nothing is left to be done.
    if (!isPage) process.stdin.destroy();
  },
};

function carryOut(line) {
  const command = JSON.parse(line);
  commands[command.do](command);
}

async function carryOutAll() {
  for (;;) {
    const response = await fetch("/command");
    if (response.status === 200) carryOut(await response.text());
  }
}

if (isPage) {
  carryOutAll();
} else {
  require("node:readline").createInterface({ input: process.stdin }).on("line", carryOut);
}
