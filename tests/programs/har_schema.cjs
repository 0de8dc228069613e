// Checks an HTTP archive by the JSON schema of HAR 1.2; says what is wrong with it.
//
// node har_schema.cjs FILE

const fs = require("fs");
const Ajv = require("ajv");
const formats = require("ajv-formats");
const schemas = require("har-schema");

// The schema is older than the validator's own strictness, and has some words of its own.
const ajv = new Ajv({ strict: false, allErrors: true, validateFormats: true });
formats(ajv);
ajv.addMetaSchema(require("ajv/dist/refs/json-schema-draft-06.json"));
for (const schema of Object.values(schemas)) ajv.addSchema(schema);

const check = ajv.getSchema("har.json#") || ajv.getSchema("har.json");
const har = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
if (!check(har)) {
  for (const error of check.errors) console.error(`${error.instancePath}: ${error.message}`);
  process.exit(1);
}
console.log(`${har.log.entries.length} entries are valid`);
