// Our own client in Node: prints each event of a run as a line of JSON, and what it says about its way.
import { Client } from "../../../api/web/client/index.ts";

const [address, key, run] = process.argv.slice(2);
const client = new Client({ url: address, credential: key });
const say = (what, told) => console.log(JSON.stringify([what, told]));
for await (const frame of client.follow(run, { onCondition: (condition) => say("condition", condition) })) {
  say("frame", frame);
}
say("state", (await client.state(run)).status);
client.close();
