{{- /* SPDX-License-Identifier: Apache-2.0 */ -}}

{{- define "podmeter.selector" -}}
app.kubernetes.io/name: podmeter
app.kubernetes.io/component: agent
{{- end }}

{{- define "podmeter.labels" -}}
{{ include "podmeter.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "podmeter.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- /* The flags that have a value: agent.mapMemory is --map-memory. */ -}}
{{- define "podmeter.args" -}}
- agent
{{- $flags := deepCopy .Values.agent }}
{{- if and .Values.webConfig.secret (not $flags.webConfigFile) }}
{{- $_ := set $flags "webConfigFile" "/etc/podmeter/web/web-config.yml" }}
{{- end }}
{{- if and .Values.geoip.fetch.enabled (not $flags.geoip) }}
{{- $files := list }}
{{- range .Values.geoip.fetch.databases }}
{{- $files = append $files (printf "/geoip/dbip-%s-lite.mmdb" .) }}
{{- end }}
{{- $_ := set $flags "geoip" $files }}
{{- end }}
{{- if and .Values.geoip.fetch.enabled (kindIs "invalid" $flags.geoipOptional) }}
{{- $_ := set $flags "geoipOptional" true }}
{{- end }}
{{- if kindIs "invalid" $flags.daemonset }}
{{- $_ := set $flags "daemonset" (printf "%s/podmeter" .Release.Namespace) }}
{{- end }}
{{- range $key := keys $flags | sortAlpha }}
{{- $value := get $flags $key }}
{{- if kindIs "slice" $value }}
{{- if $value }}
- {{ printf "--%s=%s" (kebabcase $key) (join "," $value) | quote }}
{{- end }}
{{- else if kindIs "float64" $value }}
- {{ printf "--%s=%d" (kebabcase $key) (int64 $value) | quote }}
{{- else if not (kindIs "invalid" $value) }}
- {{ printf "--%s=%v" (kebabcase $key) $value | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- /* A quantity of memory in whole Mi, rounded up. */ -}}
{{- define "podmeter.mebibytes" -}}
{{- $quantity := toString . }}
{{- $number := regexFind "^[0-9]+" $quantity | int64 }}
{{- $unit := trimPrefix (regexFind "^[0-9]+" $quantity) $quantity }}
{{- $factors := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 }}
{{- $bytes := mul $number (get $factors $unit) }}
{{- div (add $bytes 1048575) 1048576 }}
{{- end }}

{{- /* What the maps of flows take. */ -}}
{{- define "podmeter.mapMemory" -}}
{{- $maps := include "podmeter.mebibytes" (.Values.agent.mapMemory | default "64Mi") | int64 }}
{{- if .Values.agent.uplinks }}
{{- $maps = mul 2 $maps }}
{{- end }}
{{- $maps }}
{{- end }}

{{- /* What sockets take, nothing where they are not looked at. */ -}}
{{- define "podmeter.socketMemory" -}}
{{- if and (ne (.Values.agent.sockets | default "auto") "off") (eq (.Values.agent.identity | default "kubernetes") "kubernetes") .Values.cgroups.hostPath }}
{{- include "podmeter.mebibytes" .Values.resources.memoryOfSockets }}
{{- else }}0{{ end }}
{{- end }}

{{- define "podmeter.memoryRequest" -}}
{{- printf "%dMi" (add (include "podmeter.mapMemory" .) (include "podmeter.mebibytes" .Values.resources.memoryBesidesMaps.request)) }}
{{- end }}

{{- define "podmeter.memoryLimit" -}}
{{- printf "%dMi" (add (include "podmeter.mapMemory" .) (include "podmeter.mebibytes" .Values.resources.memoryBesidesMaps.limit) (include "podmeter.socketMemory" .)) }}
{{- end }}

{{- /* Refuses values of other charts by the name of what does it here, and modes that YAML
has read as true or false. */ -}}
{{- define "podmeter.hints" -}}
{{- range $key, $hint := dict
  "args" "agent.* has a value for every flag, such as agent.drainInterval"
  "extraArgs" "agent.* has a value for every flag, such as agent.drainInterval"
  "env" "set extraEnv, or a value of agent.*"
  "serviceMonitor" "set podMonitor.enabled: agents have no Service"
  "volumes" "set extraVolumes"
  "volumeMounts" "set extraVolumeMounts"
}}
{{- if hasKey $.Values $key }}
{{- fail (printf "%s is no value of this chart: %s" $key $hint) }}
{{- end }}
{{- end }}
{{- range $key, $own := dict "limits" "limit" "requests" "request" }}
{{- if hasKey $.Values.resources $key }}
{{- fail (printf "resources.%s is no value of this chart, as the %s of memory follows from the maps: set resources.memoryBesidesMaps.%s, to which agent.mapMemory and, in the limit, what sockets take is added, or, in place of all that is computed, resourcesOverride.%s.memory" $key $own $own $key) }}
{{- end }}
{{- end }}
{{- range $key, $value := .Values.agent }}
{{- if and (kindIs "bool" $value) (not (has $key (list "geoipOptional" "linkLocalPeers" "page" "pprof" "remoteWriteNativeHistograms" "rttClassicBuckets"))) }}
{{- fail (printf "agent.%s: YAML reads on and off without quotes as true and false: write %s: %q" $key $key (ternary "on" "off" $value)) }}
{{- end }}
{{- end }}
{{- end }}
