// Unpacks Chromium, its font and the shared libraries a plain system lacks into $TMPDIR; prints the executable's path.
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import chromium, { inflate } from "@sparticuz/chromium";

const packed = join(dirname(fileURLToPath(import.meta.resolve("@sparticuz/chromium"))), "..", "bin");
await inflate(join(packed, "al2023.tar.br"));
process.stdout.write(await chromium.executablePath());
