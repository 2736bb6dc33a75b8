// Sends one mail with nodemailer: HOST NAME SOURCE FROM TO FILE USER PASSWORD. Its last words are the error's.
const [host, name, localAddress, from, to, file, user, pass] = process.argv.slice(2);
const transport = require("nodemailer").createTransport({
  host, port: 25, secure: false, name, localAddress, auth: {user, pass}, tls: {rejectUnauthorized: false},
  connectionTimeout: 10000, greetingTimeout: 10000, socketTimeout: 10000,
});
transport.sendMail({envelope: {from, to}, raw: require("fs").readFileSync(file)}).then(
  () => process.exit(0), error => { console.error(error.message.replace(/\s+/g, " ")); process.exit(1); });
