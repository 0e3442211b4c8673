{{/*
The alerts of a release, as a list. Each selects the jobs of this release only,
and aggregates over all replicas: when the leader changes, another replica exports
the leader's metrics. docs/monitoring.md has a runbook for each.
*/}}
{{- define "pullpass.alerts" -}}
{{- $rule := .Values.monitoring.prometheusRule -}}
{{- $max := $rule.thresholds -}}
{{- $fullname := include "pullpass.fullname" . -}}
{{- $namespace := include "pullpass.namespace" . -}}
{{- $release := printf "%s/%s" $namespace $fullname -}}
{{- $renewer := printf `namespace="%s",job="%s-renewer"` $namespace $fullname -}}
{{- $webhook := printf `namespace="%s",job="%s-webhook"` $namespace $fullname -}}
{{- $also := $rule.additionalAggregationLabels | default list -}}
{{- $by := join ", " (concat (list "namespace" "job") $also) -}}
- alert: PullpassNoLeader
  severity: critical
  for: 5m
  expr: (sum by ({{ $by }}) (pullpass_leader{ {{- $renewer -}} }) or 0 * absent(pullpass_leader{ {{- $renewer -}} })) == 0
  summary: 'No renewer replica is the leader.'
  description: 'No replica of the renewer of {{ $release }} is the leader: no pull secret is created or renewed.'

- alert: PullpassSeveralLeaders
  severity: warning
  for: 5m
  expr: sum by ({{ $by }}) (pullpass_leader{ {{- $renewer -}} }) > 1
  summary: 'More than one renewer replica is the leader.'
  description: '{{`{{ $value }}`}} replicas of the renewer of {{ $release }} act as the leader at the same time.'

- alert: PullpassTargetDown
  severity: warning
  for: 10m
  expr: up{namespace="{{ $namespace }}",job=~"{{ $fullname }}-(renewer|webhook)"} == 0
  summary: '{{`Prometheus cannot scrape {{ $labels.pod }}.`}}'
  description: '{{`Pod {{ $labels.pod }} of {{ $labels.job }}`}} in namespace {{ $namespace }} does not answer on its admin port.'

- alert: PullpassTokenExpiresSoon
  severity: warning
  for: 5m
  expr: max by ({{ $by }}, registry) (pullpass_registry_token_expiry_timestamp_seconds{ {{- $renewer -}} }) - time() < {{ $max.tokenHours }} * 3600
  summary: '{{`The token of registry {{ $labels.registry }} is not being renewed.`}}'
  description: '{{`It expires in {{ $value | humanizeDuration }}.`}} {{ $release }} should have renewed it long ago.'

- alert: PullpassRenewalsOverdue
  severity: warning
  for: 15m
  expr: min by ({{ $by }}) (pullpass_secrets_oldest_expiry_timestamp_seconds{ {{- $renewer -}} }) - time() < {{ $max.overdueHours }} * 3600
  summary: 'Pull secrets are not being renewed in time.'
  description: '{{`The oldest entry of a pull secret expires in {{ $value | humanizeDuration }}.`}} {{ $release }} should have renewed it at half of its lifetime.'

- alert: PullpassSecretsExpireSoon
  severity: critical
  for: 5m
  expr: min by ({{ $by }}) (pullpass_secrets_oldest_expiry_timestamp_seconds{ {{- $renewer -}} }) - time() < {{ $max.secretHours }} * 3600
  summary: 'Pull secrets are about to expire.'
  description: 'The oldest entry of a pull secret of {{ $release }} {{`expires in {{ $value | humanizeDuration }}.`}} After that, pods in its namespace cannot pull.'

- alert: PullpassNamespacesNotReady
  severity: warning
  for: 15m
  expr: sum by ({{ $by }}, state) (pullpass_namespaces{ {{- $renewer -}} ,state!="ready"}) > {{ $max.namespaces }}
  summary: '{{`Labelled namespaces are in state {{ $labels.state }}.`}}'
  description: 'Labelled namespaces of {{ $release }} in state {{`{{ $labels.state }}: {{ $value }}`}}. Events in these namespaces say why.'

- alert: PullpassAWSErrors
  severity: warning
  for: 10m
  expr: sum by ({{ $by }}, operation, code) (increase(pullpass_aws_requests_total{ {{- $renewer -}} ,code!="200"}[15m])) > {{ $max.awsErrors }}
  summary: '{{`AWS requests fail: {{ $labels.operation }}.`}}'
  description: '{{`{{ $value | humanize }}`}} requests of {{ $release }} failed in the last 15 minutes with code {{`{{ $labels.code }}`}}. Valid tokens stay in place.'

- alert: PullpassSyncsFailing
  severity: warning
  for: 15m
  expr: |
    sum by ({{ $by }}, result) (rate(pullpass_syncs_total{ {{- $renewer -}} ,result=~"conflict|failed|forbidden"}[15m]))
      / on ({{ $by }}) group_left ()
    sum by ({{ $by }}) (rate(pullpass_syncs_total{ {{- $renewer -}} }[15m]))
      > {{ $max.failedSyncShare }}
    and
    sum by ({{ $by }}, result) (increase(pullpass_syncs_total{ {{- $renewer -}} ,result=~"conflict|failed|forbidden"}[15m])) > {{ $max.failedSyncs }}
  summary: '{{`Namespace reconciliations fail: {{ $labels.result }}.`}}'
  description: '{{`{{ $value | humanizePercentage }}`}} of the namespace reconciliations of {{ $release }} have the result {{`{{ $labels.result }}`}}.'

{{- if eq .Values.injection.mode "webhook" }}

- alert: PullpassWebhookDown
  severity: critical
  for: 5m
  expr: |
    (
      sum by ({{ $by }}) (min by ({{ $by }}, pod) (pullpass_ready{ {{- $webhook -}} }))
      or
      0 * sum by ({{ $by }}) (up{ {{- $webhook -}} })
      or
      0 * absent(up{ {{- $webhook -}} })
    ) == 0
  summary: 'No webhook replica is ready.'
  description: 'No replica of the webhook of {{ $release }} is ready: {{ eq .Values.injection.failurePolicy "Fail" | ternary "pods with ECR images are rejected" "pods are created without their pull secret" }}.'

- alert: PullpassWebhookErrors
  severity: warning
  for: 5m
  expr: sum by ({{ $by }}, result) (increase(pullpass_admissions_total{ {{- $webhook -}} ,result=~"error|panic|shed"}[10m])) > {{ $max.webhookErrors }}
  summary: 'Requests to the webhook fail.'
  description: '{{`{{ $value | humanize }}`}} requests to the webhook of {{ $release }} in the last 10 minutes have the result {{`{{ $labels.result }}`}}.'

{{- /* A new counter counts as an increase, if its API server was scraped before. */}}
{{- $counter := `apiserver_admission_webhook_fail_open_count{name="pods.pullpass.dev",type="admit"}` }}
{{- if eq .Values.injection.failurePolicy "Fail" }}
{{- $counter = `apiserver_admission_webhook_rejection_count{name="pods.pullpass.dev",type="admit",error_type="calling_webhook_error"}` }}

- alert: PullpassWebhookRefusingPods
  severity: critical
  summary: 'Pods are rejected because the webhook does not answer.'
  description: '{{`{{ $value | humanize }} pods with ECR images were rejected in the last 10 minutes:`}} injection.failurePolicy of {{ $release }}, or of another release, is Fail.'
{{- else }}

- alert: PullpassWebhookFailingOpen
  severity: warning
  summary: 'Pods are created without a call to the webhook.'
  description: '{{`{{ $value | humanize }} pods with ECR images were created in the last 10 minutes without an answer from the webhook`}} of {{ $release }}, or of another release.'
{{- end }}
  expr: |
    sum by ({{ prepend $also "name" | join ", " }}) (
      increase({{ $counter }}[10m]) > 0
      or
      ({{ $counter }} unless {{ $counter }} offset 10m) and on (job, instance) up offset 10m == 1
    ) > {{ $max.unanswered }}

- alert: PullpassCertificateExpiresSoon
  severity: warning
  for: 15m
  expr: |
    min by ({{ $by }}) (
      (pullpass_certificate_expiry_timestamp_seconds{ {{- $webhook -}} } > 0) - time()
      <
      clamp_max({{ $max.certificateShare }} * (
        pullpass_certificate_expiry_timestamp_seconds{ {{- $webhook -}} } - pullpass_certificate_not_before_timestamp_seconds{ {{- $webhook -}} }
      ), {{ include "pullpass.certificateSeconds" . }})
    )
  summary: 'The webhook''s certificate is not being renewed.'
  description: '{{`It expires in {{ $value | humanizeDuration }}.`}} After that, the API server does not trust the webhook of {{ $release }}.'

- alert: PullpassCertificateUnusable
  severity: critical
  for: 10m
  expr: max by ({{ $by }}) (pullpass_certificate_problem{ {{- $webhook -}} }) > 0
  summary: 'The webhook''s certificate is unusable.'
  description: 'The certificate files of the webhook of {{ $release }} contain no usable certificate and key, or the certificate is not valid at this time.'
{{- end }}
{{- end }}

{{/*
Seconds until expiry that are enough for any certificate, so that no alert fires. If
cert-manager renews the certificate later than that, half of its renewBefore is
enough.
*/}}
{{- define "pullpass.certificateSeconds" -}}
{{- $most := mulf .Values.monitoring.prometheusRule.thresholds.certificateHours 3600 -}}
{{- if eq .Values.certificates.source "certManager" -}}
  {{- $most = minf $most (divf (include "pullpass.seconds" .Values.certificates.certManager.renewBefore | float64) 2) -}}
{{- end -}}
{{ int64 $most }}
{{- end }}
