#!/bin/sh
# Writes the JSON schema that a test checks the dashboard against, from the types that Grafana publishes with each of
# its versions (npm: @grafana/schema, Apache-2.0). Grafana publishes no JSON schema of them itself. Needs npm; run it
# after the version of Grafana in deploy/compose.yml changes:
#   deploy/grafana/schema.sh > backend/tests/deploy/grafana-schema.json
set -eu
version=$(sed -n 's|.*image: grafana/grafana:\([0-9.]*\)$|\1|p' "$(dirname "$0")/../compose.yml")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit --ignore-scripts "@grafana/schema@$version" ts-json-schema-generator@2.4.0 >&2
types=./node_modules/@grafana/schema/dist
core=$types/types/raw/dashboard/x/dashboard_types.gen
panels=$types/esm/raw/composable

# Name of the schema, file of the types, name of the type, what of it a dashboard has: of the options of a panel it
# may leave out any, which Grafana fills in as it loads.
while read -r name file type as; do
  echo "import type { $type } from '$file'; export type Nova = $as;" > "$name.ts"
  npx ts-json-schema-generator --path "$name.ts" --type Nova --no-type-check --jsDoc none --minify > "$name.json"
  # What is not found where it is looked for would be a schema that everything satisfies.
  if grep -q '"Nova":{}' "$name.json"; then
    echo "$file has no type $type: Grafana moved it" >&2
    exit 1
  fi
done <<TYPES
dashboard $core Dashboard Dashboard
panel $core Panel Panel
row $core RowPanel RowPanel
bargauge $panels/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen Options Partial<Options>
stat $panels/stat/panelcfg/x/StatPanelCfg_types.gen Options Partial<Options>
timeseries $panels/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen Options Partial<Options>
timeseries_custom $panels/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen FieldConfig Partial<FieldConfig>
TYPES
# shellcheck disable=SC2016 # the $ in it is a letter of the program
version=$version node -e '
  const { readFileSync, readdirSync } = require("fs");
  const made = "made by deploy/grafana/schema.sh";
  const all = { $comment: "Types of Grafana " + process.env.version + " (npm @grafana/schema, Apache-2.0), " + made };
  for (const file of readdirSync(".").filter((name) => name.endsWith(".json") && !name.startsWith("package")).sort())
    all[file.slice(0, -5)] = JSON.parse(readFileSync(file, "utf8"));
  console.log(JSON.stringify(all, null, 1));
'
