# What real Ruby makes of templates: reads a JSON list of them, writes a JSON list of results.
#
#   echo '["<%= 1 %>"]' | ruby erb_oracle.rb      ->  [{"text":"1"}]
#
# A result is {"text": ...} or {"error": class, "message": ...}. Bytes that are not UTF-8 travel as latin-1
# in "bytes" instead of "text". Each template sees what multibinder gives it: bind_tcp, bind_unix, the
# names and instance variables of VALUES below, and an environment of two variables.
require 'erb'
require 'json'

# From 3.4 on a hash shows as {a: 1}; multibinder keeps to what templates were written for.
if RUBY_VERSION >= '3.4'
  class Hash
    def inspect
      '{' + map { |key, value| "#{key.inspect}=>#{value.inspect}" }.join(', ') + '}'
    end
    alias to_s inspect
  end
end

VALUES = {
  'backends' => [{ 'name' => 'web1', 'ip' => '10.0.0.1' }, { 'name' => 'web2', 'ip' => '10.0.0.2' }],
  'ports' => { 'http' => 80, 'https' => 443 }, 'title' => 'a "title"', 'count' => 3, 'ratio' => 0.25,
  'enabled' => true, 'nothing' => nil
}.freeze

class Scope
  def initialize
    @next = 3
    VALUES.each { |name, value| instance_variable_set('@' + name, JSON.parse(JSON.generate(value))) }
    VALUES.each_key { |name| define_singleton_method(name) { instance_variable_get('@' + name) } }
    remove_instance_variable(:@next)
    @_binder = 3
  end

  def bind_tcp(_address, _port, _options = {})
    fd = @_binder
    @_binder += 1
    "fd@#{fd}"
  end

  def bind_unix(_path, _options = {})
    bind_tcp(nil, nil)
  end

  def instance
    'foo'
  end

  def inspect
    'the scope'
  end

  def the_binding
    binding
  end
end

# A tag that is no comment and is trimmed on one side means trim mode '-' for the whole file.
def trims?(source)
  source = source.b
  source.scan(/<%%|<%#.*?%>|<%-|<%=?((?:%%>|(?!%>).)*)%>/m).any? { |inside| inside[0] && inside[0].end_with?('-') } ||
    source.gsub(/<%%/, '').gsub(/<%#.*?%>/m, '').include?('<%-')
end

def result_of(source)
  source = source.encode('iso-8859-1').force_encoding('utf-8') if source.start_with?("\u0001")
  source = source.sub(/\A\u0001/, '') if source.valid_encoding?
  text = ERB.new(source, trim_mode: trims?(source) ? '-' : nil).result(Scope.new.the_binding)
  text.valid_encoding? ? { 'text' => text } : { 'bytes' => text.b.force_encoding('iso-8859-1').encode('utf-8') }
rescue SyntaxError, StandardError => e
  { 'error' => e.class.name, 'message' => e.message.lines.first.to_s.strip }
end

$stderr = File.open(File::NULL, 'w')    # warnings of Ruby's parser
ENV['GREETING'] = 'hello'
ENV.delete('UNSET')
puts JSON.generate(JSON.parse($stdin.read).map { |source| result_of(source) })
