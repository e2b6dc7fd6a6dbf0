// Bundles parts.js into ../page/cornerstone.js, which ships.
import { readFileSync, readdirSync } from "node:fs";
import dcmjs from "dcmjs";
import { build } from "esbuild";

const stub = new URL("no_dicom.js", import.meta.url).pathname;

// Of the dictionary of DICOM (0.7 MB) only the keywords that Cornerstone3D's rules name.
const metadata = "node_modules/@cornerstonejs/metadata/dist/esm";
const sources = readdirSync(metadata, { recursive: true }).filter((p) => p.endsWith(".js"));
const words = new Set(sources.flatMap((p) => readFileSync(`${metadata}/${p}`, "utf8").match(/\w+/g)));
const named = Object.entries(dcmjs.data.DicomMetaDictionary.nameMap).filter(([name]) => words.has(name));
const names = Object.fromEntries(named.map(([name, { tag, vr, vm }]) => [name, { name, tag, vr, vm }]));

const { metafile } = await build({
  entryPoints: ["parts.js"],
  outfile: "../page/cornerstone.js",
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  legalComments: "inline",
  metafile: true,
  define: { DICOM_NAMES: JSON.stringify(names) },
  alias: { dcmjs: stub, xmlbuilder2: stub, "js-yaml": stub },
});
for (const [path, { bytes }] of Object.entries(metafile.outputs)) console.log(path, bytes);
const parts = {};
for (const [path, { bytesInOutput }] of Object.entries(Object.values(metafile.outputs)[0].inputs)) {
  const name = /.*node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1] ?? path;
  parts[name] = (parts[name] ?? 0) + bytesInOutput;
}
for (const [name, bytes] of Object.entries(parts).sort((a, b) => b[1] - a[1]).slice(0, 12)) console.log(" ", name, bytes);
