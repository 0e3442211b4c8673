{{- define "pullpass.monitoringMetadata" -}}
namespace: {{ include "pullpass.namespace" .root }}
labels:
  {{- $labels := include "pullpass.labels" (dict "root" .root "component" "monitoring") | fromYaml }}
  {{- toYaml (merge $labels .labels) | nindent 2 }}
{{- end }}

{{/*
How pods are scraped. Alerts and dashboard know the programs by their job, which
is the same whichever monitor is used.
*/}}
{{- define "pullpass.scrape" -}}
port: admin
path: /metrics
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

{{/* Labels that both programs' pods have and no other release's. */}}
{{- define "pullpass.monitoredLabels" -}}
{{- $labels := include "pullpass.selectorLabels" (dict "root" . "component" "") | fromYaml -}}
{{ toYaml (omit $labels "app.kubernetes.io/component") }}
{{- end }}
