{{- define "tiny.name" -}}{{ .Release.Name }}-tiny{{- end -}}
