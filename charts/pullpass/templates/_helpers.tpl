{{/*
What every name begins with. Fifty characters leave room for the longest suffix
within the 63 of a Service's name. A Service's name starts with a letter and
holds no dot; a release's may.
*/}}
{{- define "pullpass.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- $full := .Values.fullnameOverride -}}
{{- if not $full -}}
  {{- $full = ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]" $full) -}}
  {{- $full = printf "%s-%s" $name .Release.Name -}}
{{- end -}}
{{- $full = $full | replace "." "-" -}}
{{- if gt (len $full) 50 -}}
  {{- $full = printf "%s-%s" ($full | trunc 41 | trimSuffix "-") ($full | sha256sum | trunc 8) -}}
{{- end -}}
{{- $full -}}
{{- end }}

{{- define "pullpass.namespace" -}}
{{ .Values.namespaceOverride | default .Release.Namespace }}
{{- end }}

{{/*
The name of a cluster-scoped object: fullname, suffix and the namespace after a
dot, so that releases in two namespaces never meet. In a namespace that has the
fullname itself the dot and what follows are left out.
*/}}
{{- define "pullpass.clusterName" -}}
{{- $fullname := include "pullpass.fullname" .root -}}
{{- $namespace := include "pullpass.namespace" .root -}}
{{ $fullname }}{{ .suffix }}{{ if ne $fullname $namespace }}.{{ $namespace }}{{ end }}
{{- end }}

{{/* Labels that find the pods of a component. They depend on nothing that an upgrade may change. */}}
{{- define "pullpass.selectorLabels" -}}
app.kubernetes.io/name: {{ .root.Chart.Name | trunc 63 | trimSuffix "-" | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component | quote }}
{{- end }}

{{- define "pullpass.labels" -}}
{{- $chart := printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" -}}
{{- $own := include "pullpass.selectorLabels" . | fromYaml -}}
{{- $own = merge $own (dict
  "app.kubernetes.io/version" .root.Chart.AppVersion
  "app.kubernetes.io/managed-by" .root.Release.Service
  "app.kubernetes.io/part-of" "pullpass"
  "helm.sh/chart" $chart) -}}
{{ toYaml (merge $own .root.Values.commonLabels) }}
{{- end }}

{{/* A pod's labels name no version of the chart, so that a new one alone restarts nothing. */}}
{{- define "pullpass.podLabels" -}}
{{- $own := include "pullpass.selectorLabels" . | fromYaml -}}
{{- $own = merge $own (dict "app.kubernetes.io/part-of" "pullpass") -}}
{{ toYaml (merge $own .values.podLabels .root.Values.commonLabels) }}
{{- end }}

{{- define "pullpass.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}{{ with $image.tag }}:{{ . }}{{ end }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* With the container's, all that the restricted Pod Security standard asks for. */}}
{{- define "pullpass.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "pullpass.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "pullpass.probes" -}}
startupProbe:
  httpGet:
    path: /livez
    port: admin
  periodSeconds: 2
  failureThreshold: 30
livenessProbe:
  httpGet:
    path: /livez
    port: admin
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet:
    path: /readyz
    port: admin
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end }}

{{/* Where the pods of a component run. */}}
{{- define "pullpass.scheduling" -}}
{{- with .values.priorityClassName -}}
priorityClassName: {{ . }}
{{ end -}}
{{- with .values.nodeSelector -}}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{ end -}}
{{- with .values.tolerations -}}
tolerations:
  {{- toYaml . | nindent 2 }}
{{ end -}}
{{- with .values.affinity -}}
affinity:
  {{- toYaml . | nindent 2 }}
{{ end -}}
topologySpreadConstraints:
  - topologyKey: kubernetes.io/hostname
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels:
        {{- include "pullpass.selectorLabels" . | nindent 8 }}
{{- end }}

{{/*
Matches images that may be of ECR: at least every one that internal/ecr parses,
and little else. A partition that is new there needs no change here.
*/}}
{{- define "pullpass.imagePattern" -}}
(?i)^(([0-9]{12}|vpce-[a-z0-9-]+)\.dkr[.-]ecr(-fips)?\.[a-z0-9.-]+|public\.ecr\.aws|ecr-public\.aws\.com)/
{{- end }}
