{{/*
Prefix of all object names. Fifty characters leave room for the longest suffix within
the 63 characters of a Service's name. Among objects of one kind, no suffix is the end
of another one, so that releases with similar names never share an object. A Service's
name starts with a letter and consists of lower-case letters, digits and hyphens. A
release name may contain dots. In a subchart with an alias, the chart name is the
alias.
*/}}
{{- define "pullpass.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name | lower | replace "_" "-" | trimAll "-" -}}
{{- $full := .Values.fullnameOverride -}}
{{- if not $full -}}
  {{- $full = ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]" $full) -}}
  {{- $full = ternary (printf "%s-%s" $name .Release.Name) (printf "pullpass-%s" $full) (regexMatch "^[a-z]" $name) -}}
{{- end -}}
{{- $full = $full | replace "." "-" | trimSuffix "-" -}}
{{- if gt (len $full) 50 -}}
  {{- $full = printf "%s-%s" ($full | trunc 41 | trimSuffix "-") ($full | sha256sum | trunc 8) -}}
{{- end -}}
{{- $full -}}
{{- end }}

{{- define "pullpass.namespace" -}}
{{ .Values.namespaceOverride | default .Release.Namespace }}
{{- end }}

{{/*
The name of a cluster-scoped object: fullname, suffix, a dot and the namespace, so that
releases in different namespaces do not collide. The dot and the namespace are omitted
if the namespace is named like fullname.
*/}}
{{- define "pullpass.clusterName" -}}
{{- $fullname := include "pullpass.fullname" .root -}}
{{- $namespace := include "pullpass.namespace" .root -}}
{{ $fullname }}{{ .suffix }}{{ if ne $fullname $namespace }}.{{ $namespace }}{{ end }}
{{- end }}

{{/*
The name of an object that may be in another namespace: fullname and suffix. In another
namespace, a dot and the release's namespace follow, so that releases that share that
namespace do not collide. Arguments: root, suffix and namespace.
*/}}
{{- define "pullpass.nameIn" -}}
{{- $namespace := include "pullpass.namespace" .root -}}
{{ include "pullpass.fullname" .root }}{{ .suffix }}{{ if ne $namespace (.namespace | default $namespace) }}.{{ $namespace }}{{ end }}
{{- end }}

{{/* Labels that select the pods of a component. An upgrade must not change them. */}}
{{- define "pullpass.selectorLabels" -}}
app.kubernetes.io/name: {{ .root.Chart.Name | trimAll "-_" | trunc 63 | trimAll "-_" | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component | quote }}
{{- end }}

{{- define "pullpass.labels" -}}
{{- $chart := printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trimAll "-_" | trunc 63 | trimAll "-_." -}}
{{- $own := include "pullpass.selectorLabels" . | fromYaml -}}
{{- $own = merge $own (dict
  "app.kubernetes.io/version" .root.Chart.AppVersion
  "app.kubernetes.io/managed-by" .root.Release.Service
  "app.kubernetes.io/part-of" "pullpass"
  "helm.sh/chart" $chart) -}}
{{ toYaml (merge $own (.root.Values.commonLabels | default dict)) }}
{{- end }}

{{/*
The metadata of an object. Arguments: root, component and name; optionally clusterScoped,
namespace (instead of the release's), labels and annotations.
*/}}
{{- define "pullpass.metadata" -}}
name: {{ .name | quote }}
{{- if not .clusterScoped }}
namespace: {{ .namespace | default (include "pullpass.namespace" .root) | quote }}
{{- end }}
labels:
  {{- merge (include "pullpass.labels" . | fromYaml) (.labels | default dict) | toYaml | nindent 2 }}
{{- with merge dict (.annotations | default dict) (.root.Values.commonAnnotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Labels of pods. They do not contain the chart's version, so that a new version alone does not restart pods. */}}
{{- define "pullpass.podLabels" -}}
{{- $own := include "pullpass.selectorLabels" . | fromYaml -}}
{{- $own = merge $own (dict "app.kubernetes.io/part-of" "pullpass") -}}
{{ toYaml (merge $own (.values.podLabels | default dict) (.root.Values.commonLabels | default dict)) }}
{{- end }}

{{- define "pullpass.image" -}}
{{- $image := .Values.image -}}
{{- $repository := $image.repository -}}
{{- with (.Values.global).imageRegistry -}}
  {{- $repository = printf "%s/%s" (trimSuffix "/" .) (regexReplaceAll "^([^/]*[.:][^/]*|localhost)/" $repository "") -}}
{{- end -}}
{{- if $image.digest -}}
{{ $repository }}{{ with $image.tag }}:{{ . }}{{ end }}@{{ $image.digest }}
{{- else -}}
{{ $repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* Fields that all pods of the chart have. */}}
{{- define "pullpass.podBasics" -}}
{{- with concat ((.Values.global).imagePullSecrets | default list) (.Values.imagePullSecrets | default list) | uniq -}}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{ end -}}
enableServiceLinks: false
{{- $context := .Values.podSecurityContext | default dict }}
{{- if .Capabilities.APIVersions.Has "security.openshift.io/v1" }}
  {{- /* OpenShift assigns these, and rejects other values. */ -}}
  {{- $context = omit $context "runAsUser" "runAsGroup" "fsGroup" }}
{{- end }}
{{- with $context }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "pullpass.containerSecurityContext" -}}
{{- with .Values.securityContext -}}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "pullpass.probes" -}}
{{- $startup := dict "periodSeconds" 2 "failureThreshold" 30 -}}
{{- $liveness := dict "periodSeconds" 10 "timeoutSeconds" 5 "failureThreshold" 3 -}}
{{- $readiness := dict "periodSeconds" 5 "timeoutSeconds" 5 "failureThreshold" 2 -}}
startupProbe:
  httpGet:
    path: /livez
    port: admin
  {{- merge dict (.Values.probes.startup | default dict) $startup | toYaml | nindent 2 }}
livenessProbe:
  httpGet:
    path: /livez
    port: admin
  {{- merge dict (.Values.probes.liveness | default dict) $liveness | toYaml | nindent 2 }}
readinessProbe:
  httpGet:
    path: /readyz
    port: admin
  {{- merge dict (.Values.probes.readiness | default dict) $readiness | toYaml | nindent 2 }}
{{- end }}

{{/*
The host of webhook.url in the form that certificates use: in lower case, and an IPv6
address without brackets.
*/}}
{{- define "pullpass.webhookHost" -}}
{{- with .Values.webhook.url -}}
{{ (urlParse .).hostname | lower }}
{{- end -}}
{{- end }}

{{/* The name of a component's ServiceAccount. */}}
{{- define "pullpass.serviceAccountName" -}}
{{ .values.serviceAccount.name | default (printf "%s-%s" (include "pullpass.fullname" .root) .component) }}
{{- end }}

{{- define "pullpass.serviceAccount" -}}
{{- if .values.serviceAccount.create -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "pullpass.metadata" (dict "root" .root "component" .component "name" (include "pullpass.serviceAccountName" .) "annotations" .values.serviceAccount.annotations) | nindent 2 }}
# The pods that need the token mount it themselves.
automountServiceAccountToken: false
{{- end }}
{{- end }}

{{/* A value as text: nothing if it is empty or null, but 0 for 0. */}}
{{- define "pullpass.given" -}}
{{- if not (kindIs "invalid" .) -}}{{ . }}{{- end -}}
{{- end }}

{{/* The seconds of a duration such as 1h30m. */}}
{{- define "pullpass.seconds" -}}
{{- $seconds := 0.0 -}}
{{- $units := dict "h" 3600.0 "m" 60.0 "s" 1.0 -}}
{{- range regexFindAll "[0-9.]+[hms]" . -1 -}}
  {{- $seconds = addf $seconds (mulf (regexFind "[0-9.]+" . | float64) (get $units (regexFind "[hms]" .))) -}}
{{- end -}}
{{ $seconds }}
{{- end }}

{{- define "pullpass.podDisruptionBudget" -}}
{{- $budget := .values.podDisruptionBudget -}}
{{- if and $budget.enabled (or (kindIs "invalid" .values.replicas) (gt (int .values.replicas) 1)) -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "pullpass.metadata" (dict "root" .root "component" .component "name" (printf "%s-%s" (include "pullpass.fullname" .root) .component)) | nindent 2 }}
spec:
  {{- if include "pullpass.given" $budget.minAvailable }}
  minAvailable: {{ $budget.minAvailable }}
  {{- else }}
  maxUnavailable: {{ $budget.maxUnavailable }}
  {{- end }}
  # A pod that is not ready does not serve, and must not block a drain.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "pullpass.selectorLabels" . | nindent 6 }}
{{- end }}
{{- end }}

{{/* What is exempt from injection, by the webhook and by the policy. */}}
{{- define "pullpass.admissionSelectors" -}}
namespaceSelector:
  matchExpressions:
    - key: kubernetes.io/metadata.name
      operator: NotIn
      values:
        {{- range include "pullpass.exemptNamespaces" . | fromYamlArray }}
        - {{ . | quote }}
        {{- end }}
    {{- include "pullpass.selectorOf" .Values.injection.namespaceSelector | nindent 4 }}
objectSelector:
  matchExpressions:
    {{- include "pullpass.selectorOf" .Values.injection.objectSelector | nindent 4 }}
{{- end }}

{{- define "pullpass.exemptNamespaces" -}}
{{ concat (list "kube-system" (include "pullpass.namespace" .)) (.Values.injection.exemptNamespaces | default list) | uniq | toYaml }}
{{- end }}

{{/* Excludes what opts out, and adds the user's selector. */}}
{{- define "pullpass.selectorOf" -}}
- key: pullpass.dev/inject
  operator: NotIn
  values: ["false"]
{{- with (.).matchExpressions }}
{{ toYaml . }}
{{- end }}
{{- range $key, $value := (.).matchLabels }}
- key: {{ $key | quote }}
  operator: In
  values: [{{ $value | quote }}]
{{- end }}
{{- end }}

{{- define "pullpass.matchConditions" -}}
# The kubelet cannot create a mirror pod that names a secret.
- name: no-mirror-pod
  expression: >-
    !('kubernetes.io/config.mirror' in object.metadata.?annotations.orValue({}))
{{- if eq .Values.injection.pods "matching" }}
# The first pattern is cheap, and saves most images the second one: CEL has one cost
# budget for all images of a pod.
- name: image-of-ecr
  expression: >-
    {{- include "pullpass.images" . | nindent 4 }}.exists(image,
    image.matches('(?i)ecr') && image.matches(r'(?i)^[^/]*({{ include "pullpass.markPattern" . }})'))
{{- end }}
{{- with .Values.injection.matchConditions }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
A CEL list of all images of a pod. Only its containers can be null, in a pod that is
rejected later.
*/}}
{{- define "pullpass.images" -}}
(optional.ofNonZeroValue(object.spec.?containers.orValue([])).orValue([]).map(c, c.?image.orValue('')) +
object.spec.?initContainers.orValue([]).map(c, c.?image.orValue('')) +
object.spec.?volumes.orValue([]).map(v, v.?image.?reference.orValue('')))
{{- end }}

{{- define "pullpass.credentialsNamespace" -}}
{{ .Values.credentials.namespace | default (include "pullpass.namespace" .) }}
{{- end }}

{{- define "pullpass.credentialsRole" -}}
{{ include "pullpass.nameIn" (dict "root" . "suffix" "-renewer-credentials" "namespace" .Values.credentials.namespace) }}
{{- end }}

{{- define "pullpass.defaultCredentials" -}}
{{ or .Values.credentials.default (not (empty .Values.credentials.webIdentity.roleARN)) }}
{{- end }}

{{/*
Matches every registry's host, in lower case. Written by make update from
internal/ecr, as is the next.
*/}}
{{- define "pullpass.hostPattern" -}}
([0-9]{12}\.dkr[.-]ecr(-fips)?\.[a-z0-9][a-z0-9-]*\.|vpce(-[a-z0-9]+){2,}\.dkr[.-]ecr(-fips)?\.[a-z0-9][a-z0-9-]*\.vpce\.)(amazonaws\.com|on\.aws|amazonaws\.com\.cn|on\.amazonwebservices\.com\.cn|amazonaws\.eu|on\.amazonwebservices\.eu|c2s\.ic\.gov|sc2s\.sgov\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)|public\.ecr\.aws|ecr-public\.aws\.com
{{- end }}

{{/* Matches a part of every registry's host, and rarely anything else. */}}
{{- define "pullpass.markPattern" -}}
\.dkr\.ecr|\.dkr-ecr|public\.ecr\.aws|ecr-public\.aws\.com
{{- end }}
