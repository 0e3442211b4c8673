{{/* The metadata of a monitoring object. Arguments: root, values, and the suffix of its name, if any. */}}
{{- define "pullpass.monitoringMetadata" -}}
{{- include "pullpass.metadata" (dict "root" .root "component" "monitoring" "name" (include "pullpass.nameIn" (dict "root" .root "suffix" .suffix "namespace" .values.namespace)) "namespace" .values.namespace "labels" .values.labels "annotations" .annotations) }}
{{- end }}

{{/*
How pods are scraped. The alerts and the dashboard identify the programs by their
job, which is the same for both kinds of monitors.
*/}}
{{- define "pullpass.scrape" -}}
port: admin
path: /metrics
{{- if .monitor.honorLabels }}
honorLabels: true
{{- end }}
{{- with .monitor.interval }}
interval: {{ . }}
{{- end }}
{{- with .monitor.scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
relabelings:
  - sourceLabels: [__meta_kubernetes_pod_label_app_kubernetes_io_component]
    targetLabel: job
    replacement: {{ include "pullpass.fullname" .root }}-$1
  {{- with .monitor.relabelings }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .monitor.metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Labels that select the pods of both programs, and no pods of other releases. */}}
{{- define "pullpass.monitoredLabels" -}}
{{- $labels := include "pullpass.selectorLabels" (dict "root" . "component" "") | fromYaml -}}
{{ toYaml (omit $labels "app.kubernetes.io/component") }}
{{- end }}

{{/* The pods' namespace, for a monitor in another namespace. */}}
{{- define "pullpass.monitoredNamespace" -}}
{{- if .monitor.namespace -}}
namespaceSelector:
  matchNames: [{{ include "pullpass.namespace" .root | quote }}]
{{- end }}
{{- end }}
