// Reads a flowchart as Mermaid's own parser does, and tells its nodes and edges as JSON.
import { readFileSync } from "node:fs";
import { JSDOM } from "jsdom";

const { window } = new JSDOM("");
globalThis.window = window;
globalThis.document = window.document;
const { default: mermaid } = await import("mermaid");
const text = readFileSync(0, "utf8");
mermaid.initialize({});
await mermaid.parse(text);
const { db } = await mermaid.mermaidAPI.getDiagramFromText(text);
const nodes = [...db.getVertices().values()].map((node) => ({ id: node.id, text: node.text }));
const edges = db.getEdges().map((edge) => ({ from: edge.start, to: edge.end, text: edge.text }));
console.log(JSON.stringify({ nodes, edges }));
