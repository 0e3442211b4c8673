{{/*
The alerts of a release, as a list. Each looks at this release's jobs only, and
at all replicas together: what the leader exports moves with the leader. What is
said of an alert, and what to do, is in docs/monitoring.md.
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
  summary: 'No renewer works.'
  description: 'No replica of the renewer of {{ $release }} leads: no pull secret is made or renewed.'

- alert: PullpassSeveralLeaders
  severity: warning
  for: 5m
  expr: sum by ({{ $by }}) (pullpass_leader{ {{- $renewer -}} }) > 1
  summary: 'More than one renewer works.'
  description: '{{`{{ $value }}`}} replicas of the renewer of {{ $release }} do the work of one.'

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
  summary: '{{`The token of registry {{ $labels.registry }} is not renewed.`}}'
  description: '{{`{{ $value | humanizeDuration }} are left of it;`}} {{ $release }} should have had another long ago.'

- alert: PullpassRenewalsOverdue
  severity: warning
  for: 15m
  expr: min by ({{ $by }}) (pullpass_secrets_oldest_expiry_timestamp_seconds{ {{- $renewer -}} }) - time() < {{ $max.overdueHours }} * 3600
  summary: 'Pull secrets are not renewed in time.'
  description: '{{`The oldest entry of a pull secret ends in {{ $value | humanizeDuration }};`}} {{ $release }} should have renewed it at half of its life.'

- alert: PullpassSecretsExpireSoon
  severity: critical
  for: 5m
  expr: min by ({{ $by }}) (pullpass_secrets_oldest_expiry_timestamp_seconds{ {{- $renewer -}} }) - time() < {{ $max.secretHours }} * 3600
  summary: 'Pull secrets are about to be of no use.'
  description: 'The oldest entry of a pull secret of {{ $release }} {{`ends in {{ $value | humanizeDuration }}.`}} Pods of its namespace cannot pull after that.'

- alert: PullpassNamespacesNotReady
  severity: warning
  for: 15m
  expr: sum by ({{ $by }}, state) (pullpass_namespaces{ {{- $renewer -}} ,state!="ready"}) > {{ $max.namespaces }}
  summary: '{{`Labelled namespaces are {{ $labels.state }}.`}}'
  description: '{{`{{ $value }}`}} of the namespaces that {{ $release }} serves are {{`{{ $labels.state }}`}}, not ready. Events in them say why.'

- alert: PullpassAWSErrors
  severity: warning
  for: 10m
  expr: sum by ({{ $by }}, operation, code) (increase(pullpass_aws_requests_total{ {{- $renewer -}} ,code!="200"}[15m])) > {{ $max.awsErrors }}
  summary: '{{`AWS does not answer {{ $labels.operation }} as it should.`}}'
  description: '{{`{{ $value | humanize }}`}} requests of {{ $release }} in 15 minutes ended with {{`{{ $labels.code }}`}}. Good tokens stay where they are meanwhile.'

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
  summary: '{{`Writes of pull secrets end as {{ $labels.result }}.`}}'
  description: '{{`{{ $value | humanizePercentage }}`}} of all looks of {{ $release }} at namespaces {{`end as {{ $labels.result }}`}}.'

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
  summary: 'No webhook answers.'
  description: 'No replica of the webhook of {{ $release }} is ready: {{ eq .Values.injection.failurePolicy "Fail" | ternary "pods with ECR images are refused" "pods are created without their pull secret" }}.'

- alert: PullpassWebhookErrors
  severity: warning
  for: 5m
  expr: sum by ({{ $by }}, result) (increase(pullpass_admissions_total{ {{- $webhook -}} ,result=~"error|panic|shed"}[10m])) > {{ $max.webhookErrors }}
  summary: 'The webhook cannot do its work.'
  description: '{{`{{ $value | humanize }}`}} requests to the webhook of {{ $release }} in 10 minutes {{`ended as {{ $labels.result }}`}}.'

{{- /* A counter that is new has grown as well, if its server was watched before. */}}
{{- $counter := `apiserver_admission_webhook_fail_open_count{name="pods.pullpass.dev",type="admit"}` }}
{{- if eq .Values.injection.failurePolicy "Fail" }}
{{- $counter = `apiserver_admission_webhook_rejection_count{name="pods.pullpass.dev",type="admit",error_type="calling_webhook_error"}` }}

- alert: PullpassWebhookRefusingPods
  severity: critical
  summary: 'Pods are refused because the webhook does not answer.'
  description: '{{`{{ $value | humanize }} pods with ECR images were refused in 10 minutes:`}} injection.failurePolicy of {{ $release }}, or of another release, is Fail.'
{{- else }}

- alert: PullpassWebhookFailingOpen
  severity: warning
  summary: 'Pods are created without asking the webhook.'
  description: '{{`{{ $value | humanize }} pods with ECR images were created in 10 minutes without an answer of the webhook`}} of {{ $release }}, or of another release.'
{{- end }}
  expr: |
    sum by ({{ prepend $also "name" | join ", " }}) (
      increase({{ $counter }}[10m]) > 0
      or
      ({{ $counter }} unless {{ $counter }} offset 10m) and on (job, instance) up offset 10m
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
  summary: 'The webhook''s certificate is not renewed.'
  description: '{{`It ends in {{ $value | humanizeDuration }}.`}} After that the API server does not trust the webhook of {{ $release }}.'

- alert: PullpassCertificateUnusable
  severity: critical
  for: 10m
  expr: max by ({{ $by }}) (pullpass_certificate_problem{ {{- $webhook -}} }) > 0
  summary: 'The webhook''s certificate cannot be used.'
  description: 'The files with the certificate of the webhook of {{ $release }} hold no usable pair, or one that is not valid now.'
{{- end }}
{{- end }}

{{/*
Seconds that any certificate may be close to its end without an alert. Those that
cert-manager renews later than that get half of what it leaves them.
*/}}
{{- define "pullpass.certificateSeconds" -}}
{{- $most := mulf .Values.monitoring.prometheusRule.thresholds.certificateHours 3600 -}}
{{- if eq .Values.certificates.source "certManager" -}}
  {{- $most = minf $most (divf (include "pullpass.seconds" .Values.certificates.certManager.renewBefore | float64) 2) -}}
{{- end -}}
{{ int64 $most }}
{{- end }}
